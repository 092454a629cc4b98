//! SSH signatures of commits, as `ssh-keygen -Y sign -n git` makes them.
//!
//! Keys are OpenSSH private keys: ed25519, ECDSA on the three NIST curves, RSA from 2048 bits on.
//! Keys on hardware and DSA are refused when the key is read, and so is OpenPGP. A key is opened
//! once; signing asks nobody and takes no time worth bounding.

use super::error::SourceError;
use crate::secrets::Plaintext;
use ssh_key::private::KeypairData;
use ssh_key::{HashAlg, Kdf, LineEnding, PrivateKey};
use std::fmt;

/// Git's own namespace of signatures.
const NAMESPACE: &str = "git";

/// Bytes of a key file: RSA of 16,384 bits takes 13 KB.
const MAX_KEY: usize = 64 << 10;

/// Rounds of the passphrase's derivation that are accepted. ssh-keygen makes 16 (24 since 9.8),
/// which take a third of a second; a thousand take twenty.
const MAX_ROUNDS: u32 = 1000;

/// A private key that signs commits. It cannot be printed.
#[derive(Clone)]
pub struct SigningKey(PrivateKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.0.fingerprint(HashAlg::Sha256))
    }
}

impl SigningKey {
    /// Reads an OpenSSH private key and opens it with its passphrase.
    pub fn from_openssh(
        pem: &Plaintext,
        passphrase: Option<&Plaintext>,
    ) -> Result<SigningKey, SourceError> {
        let text = std::str::from_utf8(pem.expose()).map_err(|_| bad("it is not text"))?.trim();
        if text.len() > MAX_KEY {
            return Err(bad("it is longer than 64 KiB"));
        }
        if text.starts_with("-----BEGIN PGP") {
            return Err(bad("OpenPGP keys are not supported, use an OpenSSH key"));
        }
        if !text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
            return Err(bad("it is not in OpenSSH's form (ssh-keygen -p -f KEY converts it)"));
        }
        let key = PrivateKey::from_openssh(text).map_err(|error| bad(&error.to_string()))?;
        let key = match passphrase {
            _ if !key.is_encrypted() => key,
            None => return Err(bad("it has a passphrase and none is given")),
            Some(_) if too_slow(&key) => return Err(bad("its passphrase is hashed too often")),
            Some(passphrase) => key
                .decrypt(passphrase.expose())
                .map_err(|_| bad("the given passphrase does not open it"))?,
        };
        if let KeypairData::Rsa(pair) = key.key_data()
            && pair.public.n.as_positive_bytes().is_none_or(|n| n.len() < 2048 / 8)
        {
            return Err(bad("an RSA key needs 2048 bits or more"));
        }
        let key = SigningKey(key);
        // A kind of key that cannot sign shows here and not at the first commit.
        key.sign(b"")?;
        Ok(key)
    }

    /// The public half, one line of `authorized_keys`: what a forge must know to verify.
    pub fn public(&self) -> String {
        self.0.public_key().to_openssh().unwrap_or_default()
    }

    /// The signature of a commit's bytes, armored.
    pub(super) fn sign(&self, payload: &[u8]) -> Result<String, SourceError> {
        let signature = self.0.sign(NAMESPACE, HashAlg::Sha512, payload);
        let armored = signature.and_then(|signature| signature.to_pem(LineEnding::LF));
        armored.map_err(|error| bad(&error.to_string()))
    }
}

fn too_slow(key: &PrivateKey) -> bool {
    matches!(key.kdf(), Kdf::Bcrypt { rounds, .. } if *rounds > MAX_ROUNDS)
}

fn bad(cause: &str) -> SourceError {
    SourceError::InvalidSigningKey { cause: cause.to_owned() }
}
