//! Pure: CEL expressions of a spec, compiled once.

use serde_json::Value;

/// A compiled expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: String,
}
/// Why an expression is not accepted, or could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(pub String);

impl Expression {
    /// Compiles an expression.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        Ok(Expression { text: text.to_owned() })
    }
    /// The expression as written.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// Evaluates to a boolean with the given top-level variables.
    pub fn evaluate(&self, _variables: &[(&str, &Value)]) -> Result<bool, ExpressionError> {
        Err(ExpressionError("not supported yet".into()))
    }
}
