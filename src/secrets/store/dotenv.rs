//! Pure: dotenv as SOPS reads it: `KEY=value` lines, `\n` for a line break, nothing quoted.

use super::{Format, Node, Scalar};
use crate::secrets::SecretsError;
use zeroize::Zeroizing;

/// Reads all lines but comments and empty ones.
pub(super) fn read(bytes: &[u8]) -> Result<Node, SecretsError> {
    let mut entries = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let malformed = |problem: &str| SecretsError::Malformed {
            format: Format::Dotenv,
            line: index + 1,
            problem: problem.to_owned(),
        };
        let line = std::str::from_utf8(line).map_err(|_| malformed("not UTF-8"))?;
        let (key, value) = line.split_once('=').ok_or_else(|| malformed("there is no `=`"))?;
        let value = Zeroizing::new(value.replace("\\n", "\n").into_bytes());
        entries.push((key.to_owned(), Node::Leaf(Scalar::Text(value))));
    }
    Ok(Node::Map(entries))
}

/// Writes a line per entry.
pub(super) fn write(document: &Node, out: &mut Zeroizing<Vec<u8>>) -> Result<(), SecretsError> {
    let Node::Map(entries) = document else { return Ok(()) };
    for (key, node) in entries {
        let Node::Leaf(leaf) = node else {
            let problem = "is not a single value";
            return Err(SecretsError::Unwritable {
                format: Format::Dotenv,
                path: key.clone(),
                problem,
            });
        };
        out.extend_from_slice(key.as_bytes());
        out.push(b'=');
        for byte in leaf.to_flat().iter() {
            match byte {
                b'\n' => out.extend_from_slice(b"\\n"),
                byte => out.push(*byte),
            }
        }
        out.push(b'\n');
    }
    Ok(())
}
