//! Pure: the host's `root:` section as the GitRepository and Kustomization it stands for.
//!
//! Both are named `flux-system` in namespace `flux-system`, as Flux's bootstrap names them, so that
//! owner labels and inventory ids of a cluster that Flux brought up stay as they are.

use super::{GitReference, GitRepository, Key, Kind, Kustomization};
use std::time::Duration;

/// Namespace and name that Flux's bootstrap gives to the entry objects.
const BOOTSTRAP: &str = "flux-system";

/// The entry of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Root {
    /// The flux-config repository.
    pub source: GitRepository,
    /// The Kustomization that renders the entry path.
    pub kustomization: Kustomization,
}

/// Whether a key is the root source's. A repository that declares a source of this name means the
/// root, whatever it says of it.
pub fn is_root_source(key: &Key) -> bool {
    key.kind == Kind::GitRepository && key.namespace == BOOTSTRAP && key.name == BOOTSTRAP
}

/// Writes the two entry objects; pruning is on, as `flux bootstrap` has it.
pub fn root(url: &str, reference: GitReference, path: &str, interval: Duration) -> Root {
    let source = GitRepository {
        namespace: BOOTSTRAP.into(),
        name: BOOTSTRAP.into(),
        url: url.into(),
        interval,
        timeout: Duration::from_secs(60),
        reference,
        // Where the host has no credentials of its own, those of Flux's bootstrap serve.
        secret_ref: Some(BOOTSTRAP.into()),
        ignore: None,
        suspend: false,
        unsupported: Vec::new(),
    };
    let full_pass = interval.max(Duration::from_secs(600));
    let kustomization = Kustomization {
        namespace: BOOTSTRAP.into(),
        name: BOOTSTRAP.into(),
        path: path.into(),
        source: Key::new(Kind::GitRepository, BOOTSTRAP, BOOTSTRAP),
        interval: full_pass,
        retry_interval: interval,
        timeout: Duration::from_secs(300),
        prune: true,
        deletion_policy: super::DeletionPolicy::Orphan,
        force: false,
        wait: false,
        health_checks: Vec::new(),
        health_check_exprs: Vec::new(),
        depends_on: Vec::new(),
        target_namespace: None,
        name_prefix: None,
        name_suffix: None,
        common_labels: Default::default(),
        common_annotations: Default::default(),
        patches: Vec::new(),
        images: Vec::new(),
        components: Vec::new(),
        ignore_missing_components: false,
        build_metadata: Vec::new(),
        post_build: None,
        // The host's key opens what the tree seals, as `sops-age` would under Flux.
        decryption: Some(super::Decryption { secret_ref: None }),
        suspend: false,
        unsupported: Vec::new(),
    };
    Root { source, kustomization }
}
