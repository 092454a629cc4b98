//! Pure: bytes that nobody may see, wiped when they are dropped.
//!
//! There is no `Display`, no `Serialize` and no content in `Debug`: a plaintext that ends in a log
//! line or an error would have to be exposed by name first, and `expose` is easy to search for.

use std::fmt;
use zeroize::Zeroizing;

/// Opened bytes: a document, one value, or key material.
#[derive(Clone, Default)]
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    /// Takes the bytes over; the vector's spare capacity is wiped with it.
    pub fn new(bytes: Vec<u8>) -> Self {
        Plaintext(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Callers hand them on to a workspace or a redactor, never to a log.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where there is nothing to keep back.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Zeroizing<Vec<u8>>> for Plaintext {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Plaintext(bytes)
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::Plaintext;

    #[test]
    fn debug_shows_neither_content_nor_length() {
        let secret = Plaintext::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "Plaintext(not shown)");
        assert_eq!(secret.expose(), b"hunter2");
    }
}
