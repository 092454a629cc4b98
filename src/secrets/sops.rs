//! Pure: opens a sealed document: data key, every value against its path, MAC over the whole.
//!
//! SOPS seals each leaf with AES-256-GCM under one data key; the additional data is the path of
//! keys, so that a value which is moved does not open. Which leaves are sealed follows from one
//! rule in the metadata (`encrypted_regex` and its kin). The MAC is a SHA-512 over the plaintext
//! leaves in document order, sealed itself with `lastmodified` as its additional data.
//!
//! A value that is sealed but does not authenticate, or cleartext where the rule wants a seal,
//! stops the file. A wrong MAC does not: it is returned (see [`MacState`]).

mod cipher;
mod metadata;
mod shamir;

use super::store::{self, MAX_SEALED, Node, Scalar};
use super::{Format, Keyring, Plaintext, SecretsError};
use cipher::DataKey;
use metadata::{Metadata, Rule};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

/// `sha256("sops")`: SOPS starts the hash with it where `mac_only_encrypted` is set, so that the
/// two kinds of MAC can never be equal.
const MAC_ONLY_ENCRYPTED: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b,
    0x0b, 0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];

/// What the MAC over the whole document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MacState {
    /// No value was changed since the file was sealed. SOPS's MAC covers values in their order;
    /// names of cleartext entries it does not cover, those of sealed ones their own tags do.
    Valid,
    /// Something was: a cleartext value, the order, a missing or added value, or the metadata.
    Wrong {
        /// `sops.lastmodified`: when the file was last sealed properly.
        last_modified: String,
        /// What did not fit, as a clause.
        cause: &'static str,
    },
    /// There is no MAC, or it cannot be checked because the tree was changed by rendering.
    /// For a file this is no better than a wrong one.
    Absent,
}

/// An opened file.
#[derive(Debug)]
pub struct Opened {
    /// The whole text in the format asked for.
    pub text: Plaintext,
    /// What the MAC says.
    pub mac: MacState,
    /// Every value that was sealed, in document order, for the redactor.
    pub values: Vec<Plaintext>,
    /// The age recipients of the file.
    pub recipients: Vec<String>,
}

/// Opens a sealed file of format `input` and writes it as `output`.
///
/// # Errors
/// All of [`SecretsError`] but the identity and credential ones; never for a wrong MAC.
pub fn open(
    bytes: &[u8],
    input: Format,
    output: Format,
    keyring: &Keyring,
) -> Result<Opened, SecretsError> {
    if bytes.len() > MAX_SEALED {
        return Err(SecretsError::TooLarge { size: bytes.len(), limit: MAX_SEALED });
    }
    let mut sealed = store::read(bytes, input)?;
    let metadata = Metadata::read(&sealed.metadata)?;
    let mut opener = Opener::new(&metadata, keyring)?;
    for (index, document) in sealed.documents.iter_mut().enumerate() {
        opener.document = index;
        opener.open(document, false)?;
    }
    let mac = opener.check_mac()?;
    let values = opener.values;
    let text = store::write(&sealed.documents, output, bytes.len())?;
    Ok(Opened { text, mac, values, recipients: metadata.recipients() })
}

/// Opens an object that carries `.sops`, after rendering (Flux: Kustomization, Decryption).
///
/// The result has no `.sops`. Its MAC is always [`MacState::Absent`]: rendering has changed the
/// tree, so it could not fit. The object is ordinary JSON and not wiped: it is on its way to the
/// API server, and its owner drops it after the apply.
///
/// # Errors
/// As [`open`].
pub fn open_tree(
    value: &serde_json::Value,
    keyring: &Keyring,
) -> Result<(serde_json::Value, MacState, Vec<Plaintext>), SecretsError> {
    let found = value.get("sops").ok_or(SecretsError::NoMetadata { format: Format::Json })?;
    let metadata = Metadata::read(found)?;
    let mut tree = store::from_value(value);
    if let Node::Map(entries) = &mut tree {
        entries.retain(|(key, _)| key != "sops");
    }
    let mut opener = Opener::new(&metadata, keyring)?;
    opener.open(&mut tree, false)?;
    Ok((store::to_value(&tree), MacState::Absent, opener.values))
}

/// A step of a path; indices show in errors but take no part in the additional data.
enum Step {
    Key(String),
    Index(usize),
}

struct Opener<'a> {
    metadata: &'a Metadata,
    key: DataKey,
    hash: Sha512,
    path: Vec<Step>,
    document: usize,
    values: Vec<Plaintext>,
}

impl<'a> Opener<'a> {
    fn new(metadata: &'a Metadata, keyring: &Keyring) -> Result<Self, SecretsError> {
        let key = DataKey::new(&metadata.data_key(keyring)?)?;
        let mut hash = Sha512::new();
        if metadata.mac_only_encrypted {
            hash.update(MAC_ONLY_ENCRYPTED);
        }
        Ok(Opener { metadata, key, hash, path: Vec::new(), document: 0, values: Vec::new() })
    }

    /// Opens everything below a node in place; `named` tells whether a key above met the rule.
    ///
    /// Returns false for a sealed comment in a list, which is no part of the opened document.
    fn open(&mut self, node: &mut Node, named: bool) -> Result<bool, SecretsError> {
        match node {
            Node::Map(entries) => {
                for (key, value) in entries {
                    let named = named || self.metadata.rule.names(key);
                    self.path.push(Step::Key(key.clone()));
                    self.open(value, named)?;
                    self.path.pop();
                }
            }
            Node::List(items) => {
                let mut kept = Vec::with_capacity(items.len());
                for mut item in std::mem::take(items) {
                    self.path.push(Step::Index(kept.len()));
                    if self.open(&mut item, named)? {
                        kept.push(item);
                    }
                    self.path.pop();
                }
                *items = kept;
            }
            Node::Leaf(leaf) => return self.open_leaf(leaf, named),
        }
        Ok(true)
    }

    fn open_leaf(&mut self, leaf: &mut Scalar, named: bool) -> Result<bool, SecretsError> {
        let looks_sealed = matches!(leaf, Scalar::Text(text) if cipher::looks_sealed(text));
        let sealed = match &self.metadata.rule {
            Rule::LeaveSuffix(_) | Rule::LeaveRegex(_) => !named,
            Rule::SealSuffix(_) | Rule::SealRegex(_) => named,
            // Comments are lost by now, and were never authenticated: the look must do.
            Rule::Comments => looks_sealed,
        };
        if sealed {
            match leaf {
                Scalar::Null => {}
                // SOPS does not seal what is empty.
                Scalar::Text(text) if text.is_empty() => {}
                Scalar::Text(text) if looks_sealed => {
                    let opened = self.key.open(text, &self.additional_data());
                    match opened.map_err(|failure| self.failed(failure))? {
                        Some(opened) => {
                            self.values.push(opened.to_bytes().into());
                            *leaf = opened;
                        }
                        // SOPS turns comments of a list into items, but never those of a mapping:
                        // there the type, which no tag covers, was changed to hide a value.
                        None if matches!(self.path.last(), Some(Step::Index(_))) => {
                            return Ok(false);
                        }
                        None => return Err(self.failed(cipher::Failure::Unauthentic)),
                    }
                }
                _ => return Err(SecretsError::NotSealed { path: self.shown_path() }),
            }
        }
        if sealed || !self.metadata.mac_only_encrypted {
            self.hash.update(leaf.to_bytes().as_slice());
        }
        Ok(true)
    }

    /// Keys joined and closed by `:`, list indices left out.
    fn additional_data(&self) -> String {
        let mut data = String::new();
        for step in &self.path {
            if let Step::Key(key) = step {
                data.push_str(key);
                data.push(':');
            }
        }
        data
    }

    fn shown_path(&self) -> String {
        let mut shown = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if shown.is_empty() => shown.push_str(key),
                Step::Key(key) => {
                    shown.push('.');
                    shown.push_str(key);
                }
                Step::Index(index) => shown.push_str(&format!("[{index}]")),
            }
        }
        if self.document > 0 {
            shown.push_str(&format!(" (document {})", self.document + 1));
        }
        shown
    }

    fn failed(&self, failure: cipher::Failure) -> SecretsError {
        let path = self.shown_path();
        match failure {
            cipher::Failure::Unauthentic => SecretsError::Unauthentic { path },
            cipher::Failure::Form(problem) => SecretsError::BadValue { path, problem },
        }
    }

    fn check_mac(&mut self) -> Result<MacState, SecretsError> {
        let Some(mac) = &self.metadata.mac else { return Ok(MacState::Absent) };
        let wrong =
            |cause| MacState::Wrong { last_modified: self.metadata.last_modified.clone(), cause };
        let digest = std::mem::take(&mut self.hash).finalize();
        let expected: Zeroizing<String> =
            Zeroizing::new(digest.iter().map(|byte| format!("{byte:02X}")).collect());
        Ok(match self.key.open(mac.as_bytes(), &self.metadata.last_modified) {
            Ok(Some(Scalar::Text(found))) if *found == expected.as_bytes() => MacState::Valid,
            Ok(_) => wrong("the content changed after it was sealed"),
            Err(_) => wrong("sops.mac or sops.lastmodified was altered"),
        })
    }
}

#[cfg(test)]
mod tests;
