//! Pure: one change at the provider, as a plan shows it and the history keeps it.

/// One change. What it is about is `Tunnel/NAME`, `Route/HOST` or `Record/HOST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// `create`, `configure` or `delete`, as in every plan.
    pub verb: &'static str,
    /// `Tunnel`, `Route` or `Record`.
    pub kind: &'static str,
    /// Its name at the provider.
    pub name: String,
    /// What differs, or where it leads.
    pub lines: Vec<String>,
}

impl Deed {
    /// A change with one line of detail; none when that is empty.
    pub fn new(verb: &'static str, kind: &'static str, name: &str, line: &str) -> Self {
        let lines = if line.is_empty() { Vec::new() } else { vec![line.to_owned()] };
        Deed { verb, kind, name: name.to_owned(), lines }
    }

    /// `Kind/name`.
    pub fn object(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    /// An id of the shape that objects of the cluster have in the record.
    pub fn id(&self) -> String {
        format!("_{}_cloudflare.com_{}", self.name, self.kind)
    }
}
