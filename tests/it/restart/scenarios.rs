//! What is cut: the changes that a repository goes through in its life.

use super::{Bench, Fate, Point, Scenario, Side, kill, tear};
use crate::bed::{RegistryServer, tools};
use crate::images::{Extra, Setting, mk_app, mk_objects, values};
use crate::world::{World, mk_config_map, mk_deployment, mk_kustomization};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

impl Side {
    /// A Kustomization `NAMESPACE-NAME` with a ConfigMap for each pair of name and value.
    pub(super) fn app(self, world: &World, name: &str, spec: &str, maps: &[(&str, &str)]) -> Side {
        let mut side = self.kustomization(world, name, spec);
        for (map, value) in maps {
            let text = mk_config_map(&world.namespace, map, value);
            side = side.object(name, &format!("ConfigMap/{map}"), text, json!({"key": value}));
        }
        side
    }

    fn kustomization(mut self, world: &World, name: &str, spec: &str) -> Side {
        let full = format!("{}-{name}", world.namespace);
        let text = mk_kustomization(&full, &format!("./apps/{name}"), spec);
        self.files.insert(format!("clusters/my-cluster/{name}.yaml"), text);
        self
    }

    fn object(mut self, app: &str, id: &str, text: String, values: Value) -> Side {
        let file = id.replace('/', "-").to_lowercase();
        self.files.insert(format!("apps/{app}/{file}.yaml"), text);
        self.objects.insert(id.to_owned(), values);
        self
    }
}

fn cut(scenario: Scenario) {
    Bench::new(scenario).cut();
}

/// What most scenarios have beside what they are about.
fn base(world: &World) -> Side {
    Side::default().app(world, "base", "", &[("base-1", "1"), ("base-2", "1"), ("base-3", "1")])
}

/// With a control plane of its own, where what is in no inventory is looked for as well.
#[test]
fn three_objects_of_a_new_kustomization_come_and_go() {
    let scenario = Scenario::new("kustomization added, removed", |world, side, _| match side {
        0 => base(world),
        _ => base(world).app(world, "new", "", &[("a", "1"), ("b", "1"), ("c", "1")]),
    })
    .cut_at(kill("PATCH */configmaps/b?*"), kill("DELETE */configmaps/b*"));
    Bench::on(World::alone(), scenario).cut();
}

#[test]
fn one_object_changes() {
    cut(Scenario::new("object changed", |world, side, round| {
        let value = format!("{side} {round}");
        base(world).app(world, "app", "", &[("a", &value), ("b", "1"), ("c", "1")])
    })
    .cut_at(tear("pwrite history.db-wal"), kill("PATCH */configmaps/a?*")));
}

#[test]
fn one_object_leaves_git_and_returns() {
    cut(Scenario::new("object removed, added", |world, side, _| {
        let maps = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
        base(world).app(world, "app", "", &maps[..4 - side])
    })
    .cut_at(kill("DELETE */configmaps/d*"), kill("sync history.db-wal")));
}

#[test]
fn an_object_moves_to_another_kustomization_and_back() {
    cut(Scenario::new("object moved", |world, side, _| {
        let one = [("a", "1"), ("b", "1"), ("moving", "1")];
        let two = [("c", "1"), ("d", "1"), ("moving", "1")];
        let declared = Side::default().app(world, "one", "", &one[..3 - side]);
        declared.app(world, "two", "", &two[..2 + side])
    })
    .cut_at(kill("PATCH */configmaps/moving?*"), kill("sync history.db-wal")));
}

#[test]
fn a_shared_object_loses_one_owner_and_gets_it_back() {
    cut(Scenario::new("shared object", |world, side, _| {
        let one = [("a", "1"), ("shared", "1")];
        let two = [("b", "1"), ("shared", "1")];
        let one = &one[..2 - side];
        Side::default().app(world, "one", "", one).app(world, "two", "", &two)
    })
    .cut_at(tear("pwrite history.db-wal"), kill("PATCH */configmaps/shared?*")));
}

#[test]
fn a_sealed_file_comes_and_goes() {
    cut(Scenario::new("sealed file", |world, side, _| {
        let side_0 =
            base(world).app(world, "app", "  decryption: {provider: sops}\n", &[("a", "1")]);
        if side == 0 {
            return side_0;
        }
        static SEALED: OnceLock<String> = OnceLock::new();
        let text = SEALED.get_or_init(|| seal(&world.namespace)).clone();
        side_0.object("app", "Secret/sealed", text, json!({"password": "b3BlbnNlc2FtZQ=="}))
    })
    .cut_at(kill("PATCH */secrets/sealed?*"), kill("DELETE */secrets/sealed*")));
}

fn seal(namespace: &str) -> String {
    let recipient = "age1xwrz49vmfzwsnuu0ag2lhzehtkc0m7a7ra2w55glu6gmc9l3py0s5tftly";
    let mut child = Command::new(tools::bin().join("sops"))
        .args(["encrypt", "--age", recipient, "--encrypted-regex", "^(data|stringData)$"])
        .args(["--filename-override", "s.yaml", "--input-type", "yaml", "--output-type", "yaml"])
        .arg("/dev/stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sops can be run");
    let text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: sealed\n  namespace: {namespace}\n\
         stringData:\n  password: opensesame\n"
    );
    child.stdin.take().expect("stdin is piped").write_all(text.as_bytes()).expect("sops reads it");
    let output = child.wait_with_output().expect("sops ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("sops prints UTF-8")
}

/// Where the widgets of a round are listed.
fn widgets(world: &World, round: usize) -> (&'static str, String) {
    let namespace = &world.namespace;
    let group = format!("r{round}.{namespace}.test.invalid");
    ("Widget", format!("/apis/{group}/v1/namespaces/{namespace}/widgets"))
}

#[test]
fn an_object_of_a_new_kind_comes_with_its_definition() {
    let side = |world: &World, side: usize, round: usize| {
        if side == 0 {
            // What the round before has declared is to be gone.
            let beside = round.checked_sub(1).map(|before| widgets(world, before));
            return Side { beside, ..base(world) };
        }
        let group = format!("r{round}.{}.test.invalid", world.namespace);
        let definition = format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  \
             name: widgets.{group}\n  annotations: {{kustomize.toolkit.fluxcd.io/prune: disabled}}\n\
             spec:\n  group: {group}\n  scope: Namespaced\n  \
             names: {{kind: Widget, plural: widgets, singular: widget}}\n  versions:\n  \
             - name: v1\n    served: true\n    storage: true\n    schema:\n      openAPIV3Schema:\n        \
             type: object\n        properties: {{spec: {{type: object, \
             properties: {{size: {{type: integer}}}}}}}}\n"
        );
        let widget = format!(
            "apiVersion: {group}/v1\nkind: Widget\nmetadata:\n  name: w\n  namespace: {}\nspec:\n  \
             size: 3\n",
            world.namespace
        );
        let mut side = base(world).app(world, "app", "", &[("a", "1")]);
        side.files.insert("apps/app/definition.yaml".to_owned(), definition);
        side.files.insert("apps/app/widget.yaml".to_owned(), widget);
        side.objects.insert("Widget/w".to_owned(), json!({"size": 3}));
        side.beside = Some(widgets(world, round));
        side
    };
    cut(Scenario::new("definition and object", side)
        .cut_at(kill("PATCH */widgets/w?*"), kill("DELETE */widgets/w*")));
}

#[test]
fn what_was_edited_while_the_daemon_was_away_is_healed() {
    let side = |world: &World, _, _| base(world).app(world, "app", "", &[("a", "1"), ("b", "1")]);
    let before = |world: &World, _: usize| {
        let namespace = world.namespace.as_str();
        let patch = ["patch", "configmap", "a", "-p", "{\"data\":{\"key\":\"by hand\"}}"];
        world.cluster().kubectl_ok(&[&["--namespace", namespace], &patch[..]].concat());
    };
    cut(Scenario {
        before: Box::new(before),
        ..Scenario::new("drift healed", side)
            .cut_at(kill("PATCH */configmaps/a?*"), kill("sync mirrors/*"))
    });
}

#[test]
fn a_suspend_that_was_acknowledged_is_never_forgotten() {
    let side = |world: &World, _, _| base(world).app(world, "app", "", &[("a", "1")]);
    let act = |world: &World, side: usize| {
        let name = format!("{}-app", world.namespace);
        let verb = ["resume", "suspend"][side];
        // It may be killed by what it is asked.
        if world.run(&[verb, &name]).status.success() {
            std::fs::write(world.path("acknowledged"), verb).expect("ours to write");
        }
    };
    let before = |world: &World, _: usize| {
        std::fs::write(world.path("acknowledged"), "").expect("ours to write");
    };
    let kept = |world: &World| {
        let said = std::fs::read_to_string(world.path("acknowledged")).unwrap_or_default();
        let kept = std::fs::read_to_string(world.path("state/state.json")).unwrap_or_default();
        let stopped = kept.contains(&format!("{}-app", world.namespace));
        let wrong = !said.is_empty() && stopped != (said == "suspend");
        if wrong { vec![format!("{said} was acknowledged: {kept:?}")] } else { Vec::new() }
    };
    cut(Scenario {
        act,
        before: Box::new(before),
        kept,
        ..Scenario::new("suspend, resume", side)
            .cut_at(kill("rename .state.json*"), tear("write .state.json*"))
    });
}

/// A render becomes empty, and somebody says that this is right. The word is used up before the
/// first deletion: once anything is gone, none is left for the next time.
pub(super) fn confirmed(name: &'static str) -> Scenario {
    let side = |world: &World, side: usize, _| {
        let text = ["resources: [configmap-a.yaml, configmap-b.yaml]\n", "resources: []\n"][side];
        let maps: &[(&str, &str)] = &[("a", "1"), ("b", "1")];
        let mut declared = base(world).app(world, "app", "", if side == 0 { maps } else { &[] });
        declared.files.insert("apps/app/kustomization.yaml".to_owned(), text.to_owned());
        declared
    };
    let act = |world: &World, side: usize| {
        let held = world.status()["held"].clone();
        if side == 1
            && let Some(digest) = held[0]["digest"].as_str()
        {
            world.run(&["confirm", digest]);
        }
    };
    let kept = |world: &World| {
        // In this order: a daemon that lives may use it up, and delete, in between.
        let gone = ["a", "b"].iter().any(|name| world.get("configmap", name).is_none());
        let kept = std::fs::read_to_string(world.path("state/state.json")).unwrap_or_default();
        let left = gone && !kept.contains("\"confirmed\": []");
        if left { vec![format!("a confirmation is not used up: {kept:?}")] } else { Vec::new() }
    };
    Scenario { act, kept, ..Scenario::new(name, side) }
}

#[test]
fn a_confirmed_deletion_is_made_and_the_confirmation_used_once() {
    let second = Point { effect: "DELETE */configmaps/*".to_owned(), nth: 2 };
    for there in [kill("rename .state.json*"), Fate::Kill(second)] {
        cut(confirmed("held, confirmed").cut_at(there, kill("PATCH */configmaps/b?*")));
    }
}

#[test]
fn a_chain_of_dependencies_is_finished_in_order() {
    cut(Scenario::new("chain of dependsOn", |world, side, round| {
        let value = format!("{side} {round}");
        let after = |name: &str| format!("  dependsOn: [{{name: {}-{name}}}]\n", world.namespace);
        let chain = Side::default().app(world, "one", "", &[("a", &value)]);
        let chain = chain.app(world, "two", &after("one"), &[("b", &value)]);
        chain.app(world, "three", &after("two"), &[("c", &value)])
    })
    .cut_at(kill("PATCH */configmaps/b?*"), kill("rename mirrors/*/refs/*")));
}

#[test]
fn an_object_that_must_be_made_anew_is() {
    let side = |world: &World, side: usize, _| {
        let app = ["one", "two"][side];
        let text = mk_deployment(&world.namespace, "web", "1")
            .replace("{app: web}", &format!("{{app: {app}}}"));
        let declared = base(world).kustomization(world, "app", "  force: true\n");
        declared.object("app", "Deployment/web", text, json!("registry.test.invalid/app:1"))
    };
    let recreates: &[&str] = &["Deployment/web"];
    cut(Scenario {
        recreates,
        ..Scenario::new("force", side)
            .cut_at(kill("DELETE */deployments/web*"), kill("PATCH */deployments/web?*"))
    });
}

#[test]
fn a_source_comes_and_goes_with_what_it_brought() {
    cut(Scenario::new("source added, removed", |world, side, _| {
        let mut declared = base(world);
        if side == 0 {
            return declared;
        }
        let source = format!(
            "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata:\n  \
             name: extra\n  namespace: flux-system\nspec:\n  interval: 1h\n  url: {}\n  \
             ref: {{branch: main}}\n",
            world.git.url_of("apps/extra")
        );
        let name = format!("{}-extra", world.namespace);
        let text = mk_kustomization(&name, "./", "").replace("name: flux-system}", "name: extra}");
        declared.files.insert("clusters/my-cluster/source.yaml".to_owned(), source);
        declared.files.insert("clusters/my-cluster/extra.yaml".to_owned(), text);
        declared.objects.insert("ConfigMap/extra".to_owned(), json!({"key": "1"}));
        declared
    })
    .cut_at(kill("rename mirrors/*extra*"), kill("DELETE */configmaps/extra*")));
}

/// A tag that is in the registry before the daemon starts leads to one commit, wherever the daemon
/// dies: before the push leaves, after the remote has taken it, or with the new image deployed.
#[test]
fn a_pushed_tag_is_committed_once_and_deployed() {
    let world = World::new();
    let registry = RegistryServer::plain();
    let app = mk_app(&world, &registry, &["a"]);
    // A scan that finds nothing new writes nothing: how many there are does not count.
    let setting = Setting { scan: "1s", ..Setting::default() };
    let objects = mk_objects(&world, &registry, &setting, &Extra::default()).join("---\n");
    let tag = |round: usize| format!("a-{}", round + 1);
    let image = registry.image("games/app");
    let side = move |_: &World, _: usize, round: usize| {
        let mut side = Side::default();
        side.files.insert("clusters/my-cluster/app.yaml".to_owned(), objects.clone());
        let value = json!({"a": format!("{image}:{}", tag(round))});
        side.objects.insert("ConfigMap/images".to_owned(), value);
        side
    };
    let before = move |_: &World, round: usize| {
        registry.push("games/app", &tag(round), &tag(round));
    };
    let finished = move |world: &World, round: usize| {
        let (found, wanted) = (values(&app, "main", "a"), (0..=round).map(tag).collect::<Vec<_>>());
        let mut wrong = Vec::new();
        if found != wanted {
            wrong.push(format!("the branch had {found:?}, commit by commit, not {wanted:?}"));
        }
        let told = format!("{} → {} by ImagePolicy a", tag(round - 1), tag(round));
        let shown = world.ok(&["history", "app", "-n", "5"]);
        if !shown.contains(&told) {
            wrong.push(format!("no run tells {told:?}:\n{shown}"));
        }
        wrong
    };
    let scenario = Scenario {
        quiet: true,
        before: Box::new(before),
        finished: Box::new(finished),
        ..Scenario::new("tag pushed", side)
            .cut_onward([kill("POST */git-receive-pack"), kill("create mirrors/*_app/*")])
    };
    let mut bench = Bench::on(world, scenario);
    let (effects, _) = bench.go(1, &Fate::Count);
    let of_git: Vec<&String> = effects.all.iter().filter(|line| line.contains(".git/")).collect();
    assert_eq!(of_git, ["POST /games/app.git/git-receive-pack"], "what is asked is no effect");
    bench.cut();
}
