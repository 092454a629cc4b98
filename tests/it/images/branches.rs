//! Where commits go: to a branch of their own, merged or not, and to another one than the source's.

use super::{Extra, Setting, Stage, git};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn another_branch_is_made_for_the_commits_and_built_upon() {
    let push = "    push: {branch: image-updates}\n";
    let stage = Stage::new(&Setting { git: push, ..Setting::default() });
    stage.push("a-2");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    let branch = "image-updates";
    stage.world.eventually("the branch is made", |_| {
        git(&stage.app, &["branch", "--list", branch]).contains(branch)
    });
    assert_eq!((stage.commits("main"), stage.commits(branch)), (1, 2));
    assert_eq!(stage.in_git(branch, "a"), "a-2");
    assert_eq!(stage.deployed("a"), "a-1", "nobody has merged it");
    stage.push("a-3");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.world.eventually("the next one is built upon it", |_| stage.in_git(branch, "a") == "a-3");
    assert_eq!(stage.commits(branch), 3);

    // Merged, and another marker on main: the branch goes on from there.
    let bare = stage.app.bare().to_str().expect("a plain name");
    stage.app.git(&["pull", "--quiet", "--no-rebase", "--no-ff", "--no-edit", bare, branch]);
    let more = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: more\n  namespace: {}\ndata:\n  \
         new: old # {{\"$imagepolicy\": \"flux-system:a:tag\"}}\n",
        stage.world.namespace
    );
    stage.app.write("k8s/more.yaml", &more);
    stage.app.commit("a marker");
    stage.app.push("main");
    let told = |what: &str| stage.automation()["warnings"].to_string().contains(what);
    let poll = || stage.world.run(&["reconcile", "GitRepository/flux-system/app"]);
    poll();
    let file = format!("{branch}:k8s/more.yaml");
    let filled = |tag: &str| git(&stage.app, &["show", &file]).contains(tag);
    let at = |reference: &str| git(&stage.app, &["rev-parse", reference]);
    let parent = format!("{branch}^");
    stage.world.eventually("the branch goes on from main", |_| at(&parent) == at("main"));
    assert!(filled("new: a-3 ") && !told("lacks"), "{}", stage.automation());
    stage.push("a-4");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.world.eventually("and is built upon again", |_| stage.in_git(branch, "a") == "a-4");
    assert!(filled("new: a-4 "));

    // Nobody has merged these, and main has gone on.
    stage.app.write("README.md", "theirs");
    stage.app.commit("theirs");
    stage.app.push("main");
    poll();
    stage.world.eventually("status says what the branch lacks", |_| told("lacks 1 commit of main"));
}

#[test]
fn another_checkout_than_the_sources_is_edited_and_push_options_reach_the_server() {
    let git_spec = "    checkout: {ref: {branch: develop}}\n    \
                    push: {options: {ci.skip: '', topic: images}}\n";
    let setting = Setting { git: git_spec, ..Setting::default() };
    let stage = Stage::with(&setting, |_, _| Extra { unready: true, ..Extra::default() });
    stage.world.eventually("status says that the branch is missing", |_| {
        stage.automation()["message"].to_string().contains("branch develop")
    });
    git(&stage.app, &["config", "receive.advertisePushOptions", "true"]);
    let hook = stage.app.bare().join("hooks/post-receive");
    fs::create_dir_all(hook.parent().expect("below")).expect("ours to write");
    fs::write(&hook, "#!/bin/sh\nenv | grep '^GIT_PUSH_OPTION' | sort >options\n")
        .expect("ours to write");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("ours");
    stage.app.git(&["branch", "develop"]);
    stage.app.git(&["push", "--quiet", stage.app.bare().to_str().expect("plain"), "develop"]);
    stage.push("a-2");
    stage.reconcile("a");
    stage.world.eventually("develop has it", |_| stage.in_git("develop", "a") == "a-2");
    assert_eq!((stage.commits("develop"), stage.commits("main")), (2, 1));
    let expected = "GIT_PUSH_OPTION_0=ci.skip\nGIT_PUSH_OPTION_1=topic=images\n\
                    GIT_PUSH_OPTION_COUNT=2\n";
    stage.world.eventually("the hook has the options", |_| {
        fs::read_to_string(stage.app.bare().join("options")).is_ok_and(|o| o == expected)
    });
}
