//! Sealed files: opens what SOPS sealed to an age key, and says why when it cannot.
//!
//! A [`Keyring`] holds the host's identities, read once from [`credential()`]s and from the
//! `*.agekey` entries of Flux's Secrets ([`Keyring::parse`], [`Keyring::merge`]); [`generate()`] makes
//! a new one. For a file,
//! [`Format::by_name`] and [`is_sealed`] decide cheaply whether there is anything to do; [`open`]
//! then unwraps the data key, opens every value against its own path, checks the MAC over the
//! whole document and writes the text anew. For objects that are already rendered, [`open_tree`]
//! opens any object with `.sops` and [`detect`] finds sealed text inside `Secret.data`.
//!
//! Every opened value also comes back as a [`Plaintext`] of its own, for the redactor of the run.
//! A wrong MAC is a value ([`MacState`]), not an error: what it means is policy and not decided
//! here. Nor does this folder look for files, talk to a cluster or write anything to disk. Nothing
//! but age keys is supported; PGP and the clouds' key services are named in the error.
//!
//! Errors carry paths, public keys and line numbers, never content: see [`SecretsError`].
//! The reference for every rule is SOPS 3.13, and Flux 2.9 for what is opened when (Flux:
//! Kustomization, Decryption).

mod age;
mod credential;
mod error;
mod generate;
mod plaintext;
mod sops;
mod store;

pub use self::age::Keyring;
pub use credential::{Credential, credential, guarded, handed_over, read_credential, too_open};
pub use error::{NO_KEY, SecretsError};
pub use generate::{NewIdentity, generate, public_key};
pub use plaintext::Plaintext;
pub use sops::{MacState, Opened, open, open_tree};
pub use store::{Format, MAX_SEALED, detect, is_sealed};
