//! Pure: variables for `postBuild.substituteFrom`, from what the walk has rendered.

use crate::flux::Kustomization;
use crate::render::{Manifest, Redactor, Variables};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use zeroize::Zeroizing;

/// Data of every ConfigMap and Secret, by kind, namespace and name.
#[derive(Default)]
pub struct Values {
    known: HashMap<(String, String, String), BTreeMap<String, Held>>,
}

/// One value.
struct Held {
    text: Zeroizing<String>,
    /// It is a secret, or one has reached it.
    secret: bool,
}

/// Why a Kustomization has no variables yet.
pub struct Lack {
    /// What is missing or wrong.
    pub message: String,
    /// True when it is wrong and not only missing.
    pub wrong: bool,
}

impl Values {
    /// Takes in an object, after `stringData` was folded; anything else is no news. In a sensitive
    /// ConfigMap those values are secret that the redactor of its render finds something in.
    pub fn learn(&mut self, manifest: &Manifest, secrets: &Redactor) {
        let id = &manifest.id;
        let of_secret = id.kind == "Secret";
        if !id.group.is_empty() || !(of_secret || id.kind == "ConfigMap") {
            return;
        }
        let data = manifest.body().get("data").and_then(Value::as_object);
        let values = data.into_iter().flatten().filter_map(|(key, value)| {
            let text = value.as_str()?;
            let text = Zeroizing::new(if of_secret {
                String::from_utf8_lossy(&STANDARD.decode(text).ok()?).into_owned()
            } else {
                text.to_owned()
            });
            let secret = of_secret || manifest.sensitive && secrets.mask(&text) != *text;
            Some((key.clone(), Held { text, secret }))
        });
        let name = (id.kind.clone(), id.namespace.clone(), id.name.clone());
        self.known.insert(name, values.collect());
    }

    /// The variables of a Kustomization, and a redactor over those that are secret.
    ///
    /// # Errors
    /// A ConfigMap or Secret that is not there; with `without`, only one that is not optional.
    pub fn variables(
        &self,
        of: &Kustomization,
        without: bool,
    ) -> Result<(Variables, Redactor), Lack> {
        let mut variables = Variables::default();
        let mut redactor = Redactor::default();
        let Some(post_build) = &of.post_build else { return Ok((variables, redactor)) };
        let wrong = |message: String| Lack { message, wrong: true };
        for from in &post_build.substitute_from {
            if !["ConfigMap", "Secret"].contains(&from.kind.as_str()) {
                let kind = &from.kind;
                return Err(wrong(format!("substituteFrom: {kind:?} is no ConfigMap or Secret")));
            }
            let place = format!("{}/{}/{}", from.kind, of.namespace, from.name);
            let name = (from.kind.clone(), of.namespace.clone(), from.name.clone());
            let Some(data) = self.known.get(&name) else {
                if from.optional && without {
                    continue;
                }
                let message = format!(
                    "substituteFrom: {place} is declared nowhere in what could be walked, and \
                     there is no cluster to ask: declare it, or set optional: true"
                );
                return Err(Lack { message, wrong: false });
            };
            for (key, held) in data {
                if held.secret {
                    redactor.add(held.text.as_bytes());
                }
                variables.insert(key, &held.text).map_err(|e| wrong(format!("{place}: {e}")))?;
            }
        }
        let inserted = variables.inline(post_build, &mut redactor);
        inserted.map_err(|e| wrong(format!("postBuild.substitute: {e}")))?;
        Ok((variables, redactor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::{GitReference, PostBuild, SubstituteFrom, root};
    use serde_json::json;
    use std::time::Duration;

    fn wants(kind: &str, optional: bool) -> Kustomization {
        let branch = GitReference::Branch("main".into());
        let mut of = root("https://h/r", branch, "p", Duration::from_secs(60)).kustomization;
        let from = SubstituteFrom { kind: kind.into(), name: "vars".into(), optional };
        of.post_build = Some(PostBuild {
            substitute: [("a".to_owned(), "inline".to_owned())].into(),
            substitute_from: vec![from],
            ..PostBuild::default()
        });
        of
    }

    #[test]
    fn a_value_that_is_missing_is_waited_for_and_an_optional_one_done_without_at_the_end() {
        let values = Values::default();
        let found =
            |optional, without| values.variables(&wants("Secret", optional), without).is_ok();
        assert_eq!(
            [found(false, false), found(false, true), found(true, false), found(true, true)],
            [false, false, false, true]
        );
        let lack = values.variables(&wants("Pod", true), true).err();
        assert!(lack.is_some_and(|lack| lack.wrong));
    }

    #[test]
    fn a_secret_that_is_handed_on_in_a_config_map_or_as_an_inline_variable_is_masked() {
        let mut opened = Redactor::default();
        opened.add(b"swordfish");
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "vars", "namespace": "flux-system"},
            "data": {"b": "a swordfish", "c": "harmless"}});
        let mut values = Values::default();
        values.learn(&Manifest::new(map, None, true), &opened);
        let mut wants = wants("ConfigMap", false);
        for (sensitive, expected) in
            [(false, "inline, ***, harmless"), (true, "***, ***, harmless")]
        {
            wants.post_build.as_mut().expect("it has variables").sensitive = sensitive;
            let Ok((_, redactor)) = values.variables(&wants, false) else {
                panic!("the ConfigMap is there");
            };
            assert_eq!(redactor.mask("inline, a swordfish, harmless"), expected);
        }
    }

    #[test]
    fn data_of_a_secret_becomes_variables_that_are_masked_and_inline_ones_win() {
        let mut values = Values::default();
        let secret = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "vars", "namespace": "flux-system"},
            "data": {"a": "aHVudGVyMg==", "b": "c3dvcmRmaXNo"}});
        values.learn(&Manifest::new(secret, None, false), &Redactor::default());
        let Ok((variables, redactor)) = values.variables(&wants("Secret", false), false) else {
            panic!("the Secret is there");
        };
        let expected = Variables::from_pairs([("a", "inline"), ("b", "swordfish")]);
        assert!(variables == expected.expect("names"));
        assert_eq!(redactor.mask("a swordfish"), "a ***");
    }
}
