//! The last chapter: the box is reached from outside, through a stand-in for Cloudflare.

use crate::bed::cloudflare::Cloudflare;
use crate::page::Page;
use crate::world::World;
use serde_json::json;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

/// The public name of the game; its dev environment has one that stays inside.
const HOST: &str = "blaster.muppit.au";

/// The repository brings ingress-nginx and a connector; a tunnel is there as well.
pub fn outside(world: &mut World, page: &mut Page) {
    page.chapter("11. Reachable from outside, in a world of its own");
    page.say(
        "The provider is a stand-in: strict and stateful, but no Cloudflare, and no connector",
    );
    page.say("connects to it. The tunnel of the repository's own connector is adopted.");
    let cloud = Cloudflare::start();
    let theirs = json!([{"hostname": "nas.muppit.au", "service": "http://10.0.0.9"},
        {"service": "http_status:404"}]);
    cloud.tunnel("home", theirs);
    cloud.record("A", "nas.muppit.au", "192.0.2.9", None);
    let foreign = cloud.records();
    let token = world.path("cloudflare-token");
    std::fs::write(&token, "good-token\n").expect("ours to write");
    std::fs::set_permissions(&token, Permissions::from_mode(0o600)).expect("ours to write");
    world.drop_in(&format!(
        "edge:\n  cloudflare: {{tokenFile: {}, zones: [muppit.au], url: '{}'}}\n  \
         tunnel: {{name: home, adopt: true}}\n  hosts: [{HOST}]\n  connector: repository\n",
        token.display(),
        cloud.url()
    ));
    let began = Instant::now();
    world.start();
    let says = |text: &str| {
        world.eventually(text, |world| {
            world.status()["edge"]["message"].as_str().is_some_and(|said| said.contains(text))
        });
    };
    says("has no connection to this tunnel");
    page.claim(cloud.records() == foreign, "no name leads to a tunnel without a connector");
    cloud.connect(4);
    says("reachable through 4 connections");
    page.took(began.elapsed(), "until the edge says that it is reachable");
    page.quote(&world.run_edge());
    let rules = cloud.rules("home");
    page.claim(
        rules.len() == 3 && rules[1].starts_with("nas.muppit.au"),
        "the tunnel's other rules stay",
    );
    let records = cloud.records();
    page.claim(
        records.len() == 2 && records[0] == foreign[0] && records[1].name == HOST,
        "one record was made, and none of somebody else's touched",
    );
    let before = cloud.calls().len();
    world.ok(&["edge", "reconcile"]);
    let calls = cloud.calls().len() - before;
    page.claim(calls <= 4, format!("a comparison with the provider costs {calls} calls"));
    world.ok(&["edge", "down", "--yes"]);
    page.claim(
        cloud.records() == foreign && cloud.rules("home").len() == 2 && cloud.tunnels().len() == 1,
        "gitopsd edge down leaves what it found",
    );
    world.stop();
}

impl World {
    /// `gitopsd edge`, whatever it says.
    fn run_edge(&self) -> String {
        String::from_utf8_lossy(&self.run(&["edge"]).stdout).into_owned()
    }
}
