//! Pure: ImageRepository, the image whose tags are listed (Flux: ImageRepository).

use super::NameOnly;
use crate::flux::{Key, Kind, Pattern, Reader, Unsupported};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where tags are looked for, how often and with which credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRepository {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The image as written, without scheme, tag or digest: `registry.local:5000/games/blaster`.
    pub image: String,
    /// How often the registry is asked.
    pub interval: Duration,
    /// Limit of one scan, authentication included; the interval unless said, at least 1 s.
    pub timeout: Duration,
    /// Secret with a docker config, in the same namespace.
    pub secret_ref: Option<String>,
    /// ServiceAccount whose `imagePullSecrets` are tried when there is no `secret_ref`.
    pub service_account: Option<String>,
    /// Secret with `ca.crt` or with `tls.crt` and `tls.key`.
    pub cert_secret_ref: Option<String>,
    /// Secret with the address of a proxy.
    pub proxy_secret_ref: Option<String>,
    /// Tags that match any of these are never seen by a policy; `^.*\.sig$` unless said.
    pub exclusion_list: Vec<Pattern>,
    /// Plain HTTP.
    pub insecure: bool,
    /// Which other namespaces' policies may use this repository; `None` is none.
    pub access_from: Option<AccessFrom>,
    /// True when scanning is stopped in Git.
    pub suspend: bool,
    /// Fields we do not act upon yet.
    pub unsupported: Vec<Unsupported>,
}

/// Which namespaces may refer to an object of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessFrom {
    /// Labels of the namespaces: any of the selectors, all of its labels.
    #[serde(default)]
    namespace_selectors: Vec<NamespaceSelector>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamespaceSelector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
}

impl AccessFrom {
    /// Whether a namespace with these labels is admitted. A selector without labels admits all.
    pub fn admits(&self, labels: &BTreeMap<String, String>) -> bool {
        let all =
            |s: &NamespaceSelector| s.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v));
        self.namespace_selectors.iter().any(all)
    }

    /// Whether no namespace is admitted, whatever its labels.
    pub fn admits_nobody(&self) -> bool {
        self.namespace_selectors.is_empty()
    }
}

const SUPPORTED: &[&str] = &[
    "image",
    "interval",
    "timeout",
    "secretRef",
    "serviceAccountName",
    "certSecretRef",
    "proxySecretRef",
    "exclusionList",
    "provider",
    "insecure",
    "accessFrom",
    "suspend",
];

impl ImageRepository {
    /// The object's key.
    pub fn key(&self) -> Key {
        Key::new(Kind::ImageRepository, &self.namespace, &self.name)
    }

    /// Reads a manifest of the kind.
    ///
    /// # Errors
    ///
    /// Every problem of the spec at once, as `spec.field: what is wrong`.
    pub fn read(manifest: &Value) -> Result<Self, Vec<String>> {
        let mut reader = Reader::new(manifest);
        let image: Option<String> = reader.required("image");
        if let Some(image) = &image
            && let Err(problem) = bare_image(image)
        {
            reader.problems.push(format!("spec.image: {problem}"));
        }
        reader.required::<String>("interval");
        let interval = reader.duration("interval").unwrap_or_default();
        let timeout = reader.duration("timeout").unwrap_or(interval).max(Duration::from_secs(1));
        if let Some(provider) = reader.field::<String>("provider")
            && provider != "generic"
        {
            // Without the cloud's login every scan would fail, or see only what is public.
            reader.unsupported_field("provider", true);
        }
        let mut secret = |name: &str| reader.field::<NameOnly>(name).map(|r| r.name);
        let secret_ref = secret("secretRef");
        let cert_secret_ref = secret("certSecretRef");
        let proxy_secret_ref = secret("proxySecretRef");
        let parsed = ImageRepository {
            namespace: reader.identity.1.clone(),
            name: reader.identity.2.clone(),
            image: image.unwrap_or_default(),
            interval,
            timeout,
            secret_ref,
            service_account: reader.field("serviceAccountName").filter(|n: &String| !n.is_empty()),
            cert_secret_ref,
            proxy_secret_ref,
            exclusion_list: exclusions(&mut reader),
            insecure: reader.field("insecure").unwrap_or(false),
            access_from: reader.field("accessFrom"),
            suspend: reader.field("suspend").unwrap_or(false),
            unsupported: Vec::new(),
        };
        reader.refuse_others(SUPPORTED, &[]);
        if reader.problems.is_empty() {
            Ok(ImageRepository { unsupported: reader.unsupported, ..parsed })
        } else {
            Err(reader.wrong())
        }
    }
}

/// An image without scheme, tag and digest, as Flux insists.
fn bare_image(image: &str) -> Result<(), String> {
    let last = image.rsplit('/').next().unwrap_or_default();
    if image.contains("://") {
        return Err(format!("{image:?} must not have a scheme: registry/name is enough"));
    }
    if image.is_empty()
        || image.contains(char::is_whitespace)
        || image.split('/').any(str::is_empty)
    {
        return Err(format!("{image:?} is not an image such as registry.local/games/blaster"));
    }
    match last.split_once(['@', ':']) {
        Some((_, said)) => Err(format!("{image:?} must not have a tag or digest: drop {said:?}")),
        None => Ok(()),
    }
}

/// The exclusion list; an empty one is the default, as in Flux.
fn exclusions(reader: &mut Reader<'_>) -> Vec<Pattern> {
    /// As many as Flux's CRD admits.
    const MOST: usize = 25;
    let said: Vec<String> = reader.field("exclusionList").unwrap_or_default();
    if said.len() > MOST {
        let told = format!("spec.exclusionList: {} entries, at most {MOST}", said.len());
        reader.problems.push(told);
    }
    let said = if said.is_empty() { vec![r"^.*\.sig$".to_owned()] } else { said };
    let mut read = Vec::new();
    for (index, pattern) in said.iter().take(MOST).enumerate() {
        match Pattern::parse(pattern) {
            Ok(pattern) => read.push(pattern),
            Err(error) => reader.problems.push(format!("spec.exclusionList[{index}]: {error}")),
        }
    }
    read
}
