//! What the API server makes of untouched objects changes: another webhook, another definition.

use crate::bed::Webhook;
use crate::world::{App, World, mk_config_map};
use serde_json::{Value, json};

/// A label on whatever comes.
fn label(_object: &Value, _dry: bool) -> Value {
    json!([{"op": "add", "path": "/metadata/labels/mesh", "value": "on"}])
}

/// A definition of games, with these properties of their spec.
fn mk_definition(properties: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
         metadata: {{name: games.test.invalid}}\nspec:\n  group: test.invalid\n  \
         scope: Namespaced\n  names: {{kind: Game, plural: games}}\n  versions:\n  - name: v1\n    \
         served: true\n    storage: true\n    schema:\n      openAPIV3Schema:\n        \
         type: object\n        properties:\n          spec: {{type: object, properties: {properties}}}\n"
    )
}

#[test]
fn a_changed_webhook_or_definition_is_followed_by_a_comparison_of_what_it_concerns() {
    let mut world = World::alone();
    let ns = world.namespace.clone();
    world.cluster().apply(&mk_definition("{a: {type: string}, b: {type: string}}"));
    world.eventually("games are known", |world| {
        let listed = ["get", "games.test.invalid", "-A"];
        world.cluster().kubectl_with_input(&listed, "").status.success()
    });
    let game = format!(
        "apiVersion: test.invalid/v1\nkind: Game\nmetadata: {{name: g, namespace: {ns}}}\n\
         spec: {{a: x, b: y}}\n"
    );
    let map = mk_config_map(&ns, "a", "1").replace("  name: a\n", "  name: a\n  labels: {x: y}\n");
    world.apps(&[
        App { name: "maps", spec: "", files: &[("a.yaml", map)] },
        App { name: "games", spec: "", files: &[("game.yaml", game)] },
    ]);
    world.start();
    world.settled();

    // Nobody touches the object: an apply makes something else of it from now on.
    let webhook = Webhook::start(label);
    world.cluster().apply(&webhook.registration(&ns, "configmaps"));
    let mesh = |world: &World| {
        world.get("configmap", "a").unwrap_or_default()["metadata"]["labels"]["mesh"].clone()
    };
    world.eventually("what the webhook adds is there", |world| mesh(world) == "on");
    world.settled();
    world.cluster().kubectl_ok(&["delete", "mutatingwebhookconfiguration", &ns]);

    // A field that Git sets is no longer one: better known now than with the next commit.
    assert!(world.is_ready("games"));
    world.cluster().apply(&mk_definition("{a: {type: string}}"));
    world.eventually("the server refuses the object now", |world| !world.is_ready("games"));
    let message = world.message("games");
    assert!(message.contains("Game") && message.contains(".spec.b"), "{message}");
    assert!(world.is_ready("maps"));
    world.cluster().apply(&mk_definition("{a: {type: string}, b: {type: string}}"));
    world.eventually("and takes it again", |world| world.is_ready("games"));
}
