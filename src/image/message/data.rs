//! Pure: what a template sees, in the shape that Flux gives it.

use super::MessageData;
use super::value::{Record, Value};
use crate::image::marker::{Change, ImageRef, ObjectName};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

type Fields = Vec<(&'static str, Value)>;

/// The data of a template.
pub(super) fn root(data: &MessageData<'_>) -> Value {
    let automation = data.automation;
    let values = data.values.iter().map(|(key, value)| (Value::text(key), Value::text(value)));
    let fields = vec![
        (
            "AutomationObject",
            named(
                "NamespacedName",
                vec![
                    ("Namespace", Value::text(&automation.namespace)),
                    ("Name", Value::text(&automation.name)),
                ],
                automation.to_string(),
            ),
        ),
        ("Changed", changed(data.changes)),
        ("Values", Value::Map(Rc::new(values.collect()))),
    ];
    record("TemplateData", fields, vec![("Updated", updated(data.changes))])
}

fn record(kind: &'static str, fields: Fields, methods: Fields) -> Value {
    Value::Record(Rc::new(Record { kind, fields, methods, text: None }))
}

fn named(kind: &'static str, fields: Fields, text: String) -> Value {
    let methods = Vec::new();
    Value::Record(Rc::new(Record { kind, fields, methods, text: Some(text) }))
}

/// `.Changed`: files, their objects, and the changes of each.
fn changed(changes: &[(String, Change)]) -> Value {
    let shown = |change: &Change| {
        let fields = vec![
            ("OldValue", Value::text(&change.old)),
            ("NewValue", Value::text(&change.new)),
            ("Setter", Value::text(&change.setter)),
        ];
        record("Change", fields, Vec::new())
    };
    let mut seen = BTreeSet::new();
    let mut distinct = Vec::new();
    for (_, change) in changes {
        if seen.insert((&change.old, &change.new, &change.setter)) {
            distinct.push(shown(change));
        }
    }
    let fields = vec![("FileChanges", by_file(changes, shown))];
    let objects = by_object(changes.iter().map(|(_, change)| change), shown);
    record("Result", fields, vec![("Changes", Value::list(distinct)), ("Objects", objects)])
}

/// `.Updated`, as it was before v1: files, objects and the images of each.
fn updated(changes: &[(String, Change)]) -> Value {
    let mut seen = BTreeSet::new();
    let images = changes.iter().map(|(_, change)| &change.image);
    let distinct: Vec<_> = images.filter(|image| seen.insert(*image)).collect();
    let objects = by_object(changes.iter().map(|(_, change)| change), |c| image(&c.image));
    let files = group(changes.iter().map(|(file, change)| (file.clone(), change)));
    let files = files.into_iter().map(|(file, changes)| {
        let objects = by_object(changes.into_iter(), |c| image(&c.image));
        (Value::text(file), record("FileResult", vec![("Objects", objects)], Vec::new()))
    });
    let fields = vec![("Files", Value::Map(Rc::new(files.collect())))];
    let images = Value::list(distinct.into_iter().map(image).collect());
    record("Result", fields, vec![("Images", images), ("Objects", objects)])
}

fn by_file(changes: &[(String, Change)], show: impl Fn(&Change) -> Value + Copy) -> Value {
    let files = group(changes.iter().map(|(file, change)| (file.clone(), change)));
    let entry = |(file, changes): (String, Vec<&Change>)| {
        (Value::text(file), by_object(changes.into_iter(), show))
    };
    Value::Map(Rc::new(files.into_iter().map(entry).collect()))
}

fn by_object<'a>(
    changes: impl Iterator<Item = &'a Change>,
    show: impl Fn(&Change) -> Value,
) -> Value {
    let objects = group(changes.map(|change| (order_of(&change.object), change)));
    let entry = |(_, changes): (_, Vec<&Change>)| {
        let object = object(&changes[0].object);
        (object, Value::list(changes.into_iter().map(&show).collect()))
    };
    Value::Map(Rc::new(objects.into_iter().map(entry).collect()))
}

/// Groups in order of their keys; within one, in the order given.
fn group<'a, K: Ord>(
    changes: impl Iterator<Item = (K, &'a Change)>,
) -> BTreeMap<K, Vec<&'a Change>> {
    let mut groups: BTreeMap<K, Vec<&Change>> = BTreeMap::new();
    for (key, change) in changes {
        groups.entry(key).or_default().push(change);
    }
    groups
}

/// Go orders keys that are structs by their fields in turn.
fn order_of(object: &ObjectName) -> [String; 4] {
    let ObjectName { api_version, kind, namespace, name } = object;
    [api_version, kind, name, namespace].map(Clone::clone)
}

fn object(object: &ObjectName) -> Value {
    let ObjectName { api_version, kind, namespace, name } = object;
    let fields = vec![
        ("APIVersion", Value::text(api_version)),
        ("Kind", Value::text(kind)),
        ("Name", Value::text(name)),
        ("Namespace", Value::text(namespace)),
    ];
    named(
        "ObjectIdentifier",
        fields,
        format!("{{{{{{{api_version} {kind}}} {{{name} {namespace}}}}}}}"),
    )
}

fn image(image: &ImageRef) -> Value {
    let (registry, repository) = full_name(&image.name);
    let identifier = image.digest.as_ref().unwrap_or(&image.tag);
    let separator = if image.digest.is_some() { '@' } else { ':' };
    let fields = vec![
        ("Registry", Value::text(&registry)),
        ("Repository", Value::text(&repository)),
        ("Identifier", Value::text(identifier)),
        ("Name", Value::text(format!("{registry}/{repository}{separator}{identifier}"))),
    ];
    named("ImageRef", fields, image.to_string())
}

/// Registry and repository of an image, with what Docker leaves out.
fn full_name(name: &str) -> (String, String) {
    const HUB: &str = "index.docker.io";
    let host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if host(first) => (first, rest),
        _ => (HUB, name),
    };
    let hub = matches!(registry, HUB | "docker.io" | "registry-1.docker.io");
    match hub && !repository.contains('/') {
        true => (HUB.to_owned(), format!("library/{repository}")),
        false => (registry.to_owned(), repository.to_owned()),
    }
}
