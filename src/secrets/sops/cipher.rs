//! Pure: one sealed value, `ENC[AES256_GCM,data:..,iv:..,tag:..,type:..]`.

use crate::secrets::SecretsError;
use crate::secrets::store::Scalar;
use aes_gcm::aead::consts::U32;
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Nonce, Tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

const PREFIX: &[u8] = b"ENC[AES256_GCM,";

/// Why a value does not open.
pub(super) enum Failure {
    /// The tag does not fit content, nonce and path.
    Unauthentic,
    /// Not the form that SOPS writes.
    Form(&'static str),
}

/// The 32 bytes that all values of a file are sealed with, ready for use.
pub(super) struct DataKey(AesGcm<Aes256, U32>);

/// True where a value claims to be sealed.
pub(super) fn looks_sealed(text: &[u8]) -> bool {
    text.starts_with(PREFIX)
}

impl DataKey {
    pub(super) fn new(key: &[u8]) -> Result<Self, SecretsError> {
        let cipher = AesGcm::new_from_slice(key).map_err(|_| SecretsError::Metadata {
            field: "age".to_owned(),
            problem: "the data key is not 32 bytes long".to_owned(),
        })?;
        Ok(DataKey(cipher))
    }

    /// Opens one value; `None` for a comment.
    pub(super) fn open(
        &self,
        sealed: &[u8],
        additional_data: &str,
    ) -> Result<Option<Scalar>, Failure> {
        let parts = parse(sealed).ok_or(Failure::Form("is not of the form ENC[AES256_GCM,...]"))?;
        let [data, nonce, tag] = parts.sealed;
        if nonce.len() != 32 || tag.len() != 16 {
            return Err(Failure::Form("has a nonce or tag of the wrong length"));
        }
        let mut data = Zeroizing::new(data);
        let (nonce, tag) = (Nonce::from_slice(&nonce), Tag::from_slice(&tag));
        self.0
            .decrypt_in_place_detached(nonce, additional_data.as_bytes(), &mut data, tag)
            .map_err(|_| Failure::Unauthentic)?;
        typed(data, parts.kind)
    }
}

struct Parts<'a> {
    /// Data, nonce and tag.
    sealed: [Vec<u8>; 3],
    kind: &'a str,
}

fn parse(sealed: &[u8]) -> Option<Parts<'_>> {
    let text = std::str::from_utf8(sealed).ok()?.trim_end();
    let text = text.strip_prefix("ENC[AES256_GCM,data:")?.strip_suffix(']')?;
    let (data, rest) = text.split_once(",iv:")?;
    let (nonce, rest) = rest.split_once(",tag:")?;
    let (tag, kind) = rest.split_once(",type:")?;
    let decode = |text: &str| STANDARD.decode(text).ok();
    Some(Parts { sealed: [decode(data)?, decode(nonce)?, decode(tag)?], kind })
}

/// Gives opened bytes the type that was sealed with them.
///
/// The type is not authenticated, so a text that does not fit its type is altered.
fn typed(data: Zeroizing<Vec<u8>>, kind: &str) -> Result<Option<Scalar>, Failure> {
    let text = || std::str::from_utf8(&data).map_err(|_| Failure::Unauthentic);
    let leaf = match kind {
        "str" | "bytes" => Scalar::Text(data),
        "comment" => return Ok(None),
        "int" => Scalar::Int(text()?.parse::<i64>().map_err(|_| Failure::Unauthentic)?.into()),
        "float" => match text()? {
            "+Inf" => Scalar::Float(f64::INFINITY),
            "-Inf" => Scalar::Float(f64::NEG_INFINITY),
            text => Scalar::Float(text.parse().map_err(|_| Failure::Unauthentic)?),
        },
        // Go's ParseBool.
        "bool" => Scalar::Bool(match text()? {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return Err(Failure::Unauthentic),
        }),
        "time" => Scalar::Time(Zeroizing::new(text()?.to_owned())),
        _ => return Err(Failure::Form("is of an unknown type")),
    };
    Ok(Some(leaf))
}
