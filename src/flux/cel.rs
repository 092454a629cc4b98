//! Pure: CEL expressions of a spec, compiled once.
//!
//! `healthCheckExprs` see the top-level fields of an object as variables, `readyExpr` sees `self`
//! and `dep`. Libraries: the standard one with optionals, strings, lists, encoders and math.
//! Flux's `sets.*` is missing. Whole numbers are `int`, as they are to Flux.

use cel::{Context, Env, ExecutionError, Program, Value as CelValue};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Longest expression in bytes. Those in Flux's documentation have 150 at most; the parser
/// itself stops at a nesting of 96.
const MAX_LENGTH: usize = 4096;
/// Longest part of an evaluation's error that is passed on, in characters: it may cite a value.
const MAX_ERROR: usize = 200;

/// A compiled expression. Two are equal if their texts are.
#[derive(Clone)]
pub struct Expression {
    text: String,
    program: Arc<Program>,
}

/// Why an expression is not accepted, or could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(pub String);

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// The parser's complaint, or that the text is longer than 4 KiB. Whether the names in it mean
    /// anything shows on evaluation only.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_LENGTH {
            let length = text.len();
            return Err(ExpressionError(format!("{length} bytes are more than {MAX_LENGTH}")));
        }
        let program = environment().compile(text).map_err(|errors| {
            let said = errors.to_string();
            let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
            ExpressionError(format!("not a CEL expression: {}", shorten(&lines.join("; "))))
        })?;
        // It would fail at every evaluation, and the object would be waited for in vain.
        if program.references().has_variable("sets") {
            return Err(ExpressionError("the functions sets.* are not supported".to_owned()));
        }
        Ok(Expression { text: text.to_owned(), program: Arc::new(program) })
    }

    /// The expression as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Evaluates to a boolean with the given top-level variables.
    ///
    /// # Errors
    ///
    /// A field or variable that is missing, types that do not fit, or a result that is no boolean.
    pub fn evaluate(&self, variables: &[(&str, &Value)]) -> Result<bool, ExpressionError> {
        let mut context = Context::with_env(environment());
        for (name, value) in variables {
            context.add_variable_from_value(*name, convert(value));
        }
        match self.program.execute(&context) {
            Ok(CelValue::Bool(result)) => Ok(result),
            Ok(other) => Err(ExpressionError(format!("is of type {}, not bool", other.type_of()))),
            Err(ExecutionError::NoSuchKey(name)) => {
                Err(ExpressionError(format!("there is no field {name}")))
            }
            Err(ExecutionError::UndeclaredReference(name)) => {
                Err(ExpressionError(format!("there is no variable or function {name}")))
            }
            Err(error) => Err(ExpressionError(shorten(&error.to_string()))),
        }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.text)
    }
}

fn environment() -> Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    let build = || {
        let mut environment = Env::stdlib();
        for added in [
            environment.add_extension(cel::extensions::strings),
            environment.add_extension(cel::extensions::lists),
            environment.add_extension(cel::extensions::encoders),
            environment.add_extension(cel::extensions::math),
        ] {
            added
                .unwrap_or_else(|error| unreachable!("extensions name no function twice: {error}"));
        }
        Arc::new(environment)
    };
    Arc::clone(ENVIRONMENT.get_or_init(build))
}

/// JSON as CEL values; serde would make every whole number unsigned, which adds to no `int`.
fn convert(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => CelValue::Int(number),
            (None, Some(number)) => CelValue::UInt(number),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::from(text.as_str()),
        Value::Array(items) => CelValue::from(items.iter().map(convert).collect::<Vec<_>>()),
        Value::Object(fields) => CelValue::from(
            fields
                .iter()
                .map(|(name, value)| (name.as_str(), convert(value)))
                .collect::<HashMap<_, _>>(),
        ),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_ERROR) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn evaluate(text: &str, object: &Value) -> Result<bool, String> {
        let expression = Expression::compile(text).map_err(|error| error.0)?;
        let fields = object.as_object().expect("an object");
        let variables: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
        expression.evaluate(&variables).map_err(|error| error.0)
    }

    fn certificate(ready: &str, observed: i64) -> Value {
        json!({
            "metadata": {"name": "c", "generation": 3, "labels": {"v": "1.2", "app.kubernetes.io/x": "y"}},
            "spec": {"replicas": 2, "weight": 0.5, "dnsNames": ["a.example", "b.example"]},
            "status": {"phase": "Ready", "observedGeneration": observed, "conditions": [
                {"type": "Ready", "status": ready, "observedGeneration": observed},
                {"type": "Issuing", "status": "False", "observedGeneration": 1},
            ]},
        })
    }

    #[test]
    fn health_checks_of_the_documentation_hold_and_do_not_hold() {
        let current = "status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True' && \
                       e.observedGeneration == metadata.generation)";
        let failed = "status.conditions.exists(e, e.type == 'Ready' && e.status == 'False')";
        for (text, ready, observed, expected) in [
            (current, "True", 3, true),
            (current, "True", 2, false),
            (current, "False", 3, false),
            (failed, "False", 3, true),
            (failed, "True", 3, false),
            (
                "status.conditions.filter(e, e.type == 'Nope').all(e, e.status == 'True')",
                "True",
                3,
                true,
            ),
            ("has(status.conditions) && !has(status.missing)", "True", 3, true),
            (
                "has(status.missing) ? status.missing == 'x' : status.phase in ['Ready', 'Done']",
                "True",
                3,
                true,
            ),
            ("status.?missing.orValue('none') == 'none'", "True", 3, true),
            ("status.?phase.orValue('none') == 'Ready'", "True", 3, true),
            ("metadata.labels['app.kubernetes.io/x'] == 'y'", "True", 3, true),
            ("metadata.name.startsWith('c') && metadata.name.size() == 1", "True", 3, true),
            ("metadata.labels.v.split('.')[0] == '1'", "True", 3, true),
            ("metadata.labels.v.matches('^[0-9.]+$')", "True", 3, true),
            (
                "spec.dnsNames.map(n, n.upperAscii()).join(',') == 'A.EXAMPLE,B.EXAMPLE'",
                "True",
                3,
                true,
            ),
            (
                "spec.replicas - 1 == 1 && spec.replicas + 1 > status.observedGeneration - 1",
                "True",
                3,
                true,
            ),
            ("spec.weight < 1.0 && int(metadata.generation) == 3", "True", 3, true),
            ("base64.encode(b'hi') == 'aGk='", "True", 3, true),
        ] {
            assert_eq!(evaluate(text, &certificate(ready, observed)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn ready_expressions_compare_self_and_dep() {
        let text = "dep.metadata.labels['v'] == self.metadata.labels['v']";
        let expression = Expression::compile(text).expect("compiles");
        let one = json!({"metadata": {"labels": {"v": "1"}}});
        let two = json!({"metadata": {"labels": {"v": "2"}}});
        assert_eq!(expression.evaluate(&[("self", &one), ("dep", &one)]), Ok(true));
        assert_eq!(expression.evaluate(&[("self", &one), ("dep", &two)]), Ok(false));
        assert!(expression.evaluate(&[("self", &one), ("dep", &json!({}))]).is_err());
    }

    #[test]
    fn what_is_missing_or_no_boolean_is_an_error() {
        for (text, error) in [
            ("status.nope == 'x'", "there is no field nope"),
            ("nope.x == 'x'", "there is no variable or function nope"),
            ("status.phase", "is of type string, not bool"),
            ("spec.replicas + 1", "is of type int, not bool"),
            ("nope(1)", "there is no variable or function nope"),
        ] {
            assert_eq!(evaluate(text, &certificate("True", 3)), Err(error.to_owned()), "{text}");
        }
        for text in ["metadata.name + 1 == 2", "status.conditions[9].type == 'x'"] {
            assert!(evaluate(text, &certificate("True", 3)).is_err(), "{text}");
        }
    }

    #[test]
    fn malformed_and_endless_expressions_do_not_compile() {
        for text in ["", "status.", "a ==", "a = b", "'open", "a b"] {
            let error = Expression::compile(text).expect_err(text);
            assert!(error.0.starts_with("not a CEL expression: "), "{text}: {error}");
            assert!(!error.0.contains('\n'));
        }
        let long = format!("'{}' == ''", "a".repeat(5000));
        assert!(Expression::compile(&long).is_err_and(|error| error.0.ends_with("more than 4096")));
        assert!(Expression::compile(&"(".repeat(4000)).is_err());
        let sets = Expression::compile("sets.contains([1, 2], [1])").map_err(|error| error.0);
        assert_eq!(sets, Err("the functions sets.* are not supported".to_owned()));
    }

    #[test]
    fn expressions_are_equal_by_text_and_print_it() {
        let compile = |text| Expression::compile(text).expect("compiles");
        assert_eq!(compile("true"), compile("true").clone());
        assert_ne!(compile("true"), compile("false"));
        assert_eq!(format!("{:?}", compile("a == 1")), r#"Expression("a == 1")"#);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-c .()\\[\\]{}'\"?:!&|=<>+0-9\\\\é-]{0,40}") {
            let _ = Expression::compile(&text).map(|e| e.evaluate(&[("a", &json!({"b": [1]}))]));
        }
    }
}
