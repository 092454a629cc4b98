//! SSH signatures of commits, as `ssh-keygen -Y sign -n git` makes them.
//!
//! Keys are OpenSSH private keys: ed25519, ECDSA on P-256 and P-384, RSA of 2048 to 4096 bits. Keys
//! on hardware, DSA, and P-521, whose signatures differ each time here, are refused when the key is
//! read, and so is OpenPGP. A key is opened once; signing asks nobody and takes no time worth
//! bounding.

use super::error::SourceError;
use crate::secrets::Plaintext;
use rsa::signature::{SignatureEncoding, Signer};
use ssh_key::private::{KeypairData, RsaKeypair};
use ssh_key::{Algorithm, HashAlg, Kdf, LineEnding, Mpint, PrivateKey, Signature, SshSig};
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
        let signature = match self.0.key_data() {
            KeypairData::Rsa(pair) => self.sign_rsa(pair, payload)?,
            _ => self.0.sign(NAMESPACE, HashAlg::Sha512, payload).map_err(unusable)?,
        };
        signature.to_pem(LineEnding::LF).map_err(unusable)
    }

    /// As [`PrivateKey::sign`] would, if it did not take the first prime for the second as well.
    fn sign_rsa(&self, pair: &RsaKeypair, payload: &[u8]) -> Result<SshSig, SourceError> {
        let number = |number: &Mpint| {
            let bytes = number.as_positive_bytes().ok_or_else(|| bad("a number is negative"))?;
            Ok(rsa::BigUint::from_bytes_be(bytes))
        };
        let primes = vec![number(&pair.private.p)?, number(&pair.private.q)?];
        let (n, e, d) = (&pair.public.n, &pair.public.e, &pair.private.d);
        let key = rsa::RsaPrivateKey::from_components(number(n)?, number(e)?, number(d)?, primes);
        let key = key.map_err(|error| bad(&error.to_string()))?;
        let signer = rsa::pkcs1v15::SigningKey::<rsa::sha2::Sha512>::new(key);
        let hash = HashAlg::Sha512;
        let signed = SshSig::signed_data(NAMESPACE, hash, payload).map_err(unusable)?;
        let made = signer.try_sign(&signed).map_err(|error| bad(&error.to_string()))?;
        let algorithm = Algorithm::Rsa { hash: Some(hash) };
        let made = Signature::new(algorithm, made.to_vec()).map_err(unusable)?;
        let public = self.0.public_key().key_data().clone();
        SshSig::new(public, NAMESPACE, hash, made).map_err(unusable)
    }
}

fn unusable(error: ssh_key::Error) -> SourceError {
    bad(&error.to_string())
}

fn too_slow(key: &PrivateKey) -> bool {
    matches!(key.kdf(), Kdf::Bcrypt { rounds, .. } if *rounds > MAX_ROUNDS)
}

fn bad(cause: &str) -> SourceError {
    SourceError::InvalidSigningKey { cause: cause.to_owned() }
}
