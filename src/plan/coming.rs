//! Pure: what an earlier stage of the same plan is going to make.
//!
//! An object of a CRD, or in a namespace, that does not exist yet cannot be asked about. In a run
//! its stage comes after theirs; a plan that is only shown says so instead of showing a refusal.

use super::{Action, RefusalKind, Step};
use serde_json::Value;
use std::collections::BTreeSet;

/// Kinds and namespaces on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coming {
    kinds: BTreeSet<(String, String)>,
    namespaces: BTreeSet<String>,
}

impl Coming {
    /// Takes in a step of an earlier stage.
    pub fn add(&mut self, step: &Step) {
        if step.action != Action::Create {
            return;
        }
        let (id, body) = (&step.manifest.id, step.manifest.body());
        let text = |pointer| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        match id.kind.as_str() {
            "Namespace" => drop(self.namespaces.insert(id.name.clone())),
            "CustomResourceDefinition" => {
                let kind = (text("/spec/group").to_owned(), text("/spec/names/kind").to_owned());
                self.kinds.insert(kind);
            }
            _ => {}
        }
    }

    /// Takes in a namespace that is made before anything else.
    pub fn expect(&mut self, namespace: String) {
        self.namespaces.insert(namespace);
    }

    /// Turns a refusal for want of what is coming into a deferral.
    pub fn defer(&self, step: &mut Step) {
        let Action::Refuse(refusal) = &step.action else { return };
        let id = &step.manifest.id;
        let kind = self.kinds.contains(&(id.group.clone(), id.kind.clone()));
        let why = match refusal.kind {
            RefusalKind::UnknownKind if kind => "its CRD is created first".to_owned(),
            RefusalKind::MissingNamespace if self.namespaces.contains(&id.namespace) => {
                format!("namespace {} is created first", id.namespace)
            }
            _ => return,
        };
        step.action = Action::Deferred(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Refusal;
    use crate::render::Manifest;
    use serde_json::json;

    fn step(body: Value, action: Action) -> Step {
        let manifest = Manifest::new(body, None, false);
        Step {
            manifest,
            action,
            differences: Vec::new(),
            uid: None,
            take_over: false,
            blind: false,
            notices: Vec::new(),
        }
    }

    fn refused(body: Value, kind: RefusalKind) -> Step {
        let refusal = Refusal { kind, status: 404, message: "no".into() };
        step(body, Action::Refuse(refusal))
    }

    #[test]
    fn what_waits_for_the_same_plan_is_deferred_and_nothing_else() {
        let mut coming = Coming::default();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
        coming.add(&step(namespace.clone(), Action::Create));
        coming.expect("flux-system".to_owned());
        let crd = json!({"apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition", "metadata": {"name": "games.example.com"},
            "spec": {"group": "example.com", "names": {"kind": "Game"}}});
        coming.add(&step(crd, Action::Create));

        let game = json!({"apiVersion": "example.com/v1", "kind": "Game",
            "metadata": {"name": "g", "namespace": "n"}});
        let other = json!({"apiVersion": "example.com/v1", "kind": "Toy",
            "metadata": {"name": "t", "namespace": "n"}});
        let inside = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "c", "namespace": "n"}});
        let mut waits = refused(game, RefusalKind::UnknownKind);
        coming.defer(&mut waits);
        assert_eq!(waits.action, Action::Deferred("its CRD is created first".into()));
        for namespace in ["n", "flux-system"] {
            let mut inside = inside.clone();
            inside["metadata"]["namespace"] = json!(namespace);
            let mut waits = refused(inside, RefusalKind::MissingNamespace);
            coming.defer(&mut waits);
            let why = format!("namespace {namespace} is created first");
            assert_eq!(waits.action, Action::Deferred(why));
        }
        for mut stays in
            [refused(other, RefusalKind::UnknownKind), refused(inside, RefusalKind::Forbidden)]
        {
            coming.defer(&mut stays);
            assert!(matches!(stays.action, Action::Refuse(_)));
        }
        let mut there = Coming::default();
        there.add(&step(namespace, Action::Unchanged));
        assert_eq!(there, Coming::default());
    }
}
