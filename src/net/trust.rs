//! Pure: whom we believe and how we reach them.

/// Whom we believe and how we reach them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM bundle of CAs accepted beside the system's own.
    pub ca: Option<Vec<u8>>,
    /// Whether `HTTPS_PROXY` and its relatives are obeyed.
    pub proxy_from_env: bool,
}
