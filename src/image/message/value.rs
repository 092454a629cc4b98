//! Pure: the values that a template works on, and how Go prints them.

use std::fmt::Write;
use std::rc::Rc;

/// A value of a template.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// What is not there: a missing key of a map. Prints as `<no value>`.
    Missing,
    /// The constant `nil`.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<Vec<Value>>),
    /// In order of its keys.
    Map(Rc<Vec<(Value, Value)>>),
    Record(Rc<Record>),
}

/// A struct of Go: fields, and methods without arguments, which look alike in a template.
#[derive(Debug)]
pub(super) struct Record {
    /// Go's name of the type, for errors.
    pub kind: &'static str,
    /// What is printed, in order.
    pub fields: Vec<(&'static str, Value)>,
    /// What is only reached by name.
    pub methods: Vec<(&'static str, Value)>,
    /// What it prints as, where it says so itself.
    pub text: Option<String>,
}

/// Printed text that must not grow without limit.
pub(super) struct Output {
    pub text: String,
    pub limit: usize,
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.text.len() + text.len() > self.limit {
            return Err(std::fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

impl Value {
    /// A text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Value::Text(text.as_ref().into())
    }

    /// A list.
    pub fn list(values: Vec<Value>) -> Self {
        Value::List(Rc::new(values))
    }

    /// Go's idea of truth: not empty, not zero. A struct is always true.
    pub fn truth(&self) -> bool {
        match self {
            Value::Missing | Value::Nil => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(value) => !value.is_empty(),
            Value::List(value) => !value.is_empty(),
            Value::Map(value) => !value.is_empty(),
            Value::Record(_) => true,
        }
    }

    /// Go's name of the type.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Missing | Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::List(_) => "[]interface {}",
            Value::Map(_) => "map[string]interface {}",
            Value::Record(record) => record.kind,
        }
    }

    /// Prints as `%v` does. Lists and maps may share their parts: it is the output that is bounded.
    pub fn print(&self, out: &mut Output) -> std::fmt::Result {
        match self {
            Value::Missing | Value::Nil => out.write_str("<nil>"),
            Value::Bool(value) => write!(out, "{value}"),
            Value::Int(value) => write!(out, "{value}"),
            Value::Float(value) => out.write_str(&float(*value)),
            Value::Text(value) => out.write_str(value),
            Value::List(values) => {
                out.write_str("[")?;
                Self::print_all(values.iter(), out)?;
                out.write_str("]")
            }
            Value::Map(entries) => {
                out.write_str("map[")?;
                for (n, (key, value)) in entries.iter().enumerate() {
                    out.write_str(if n > 0 { " " } else { "" })?;
                    key.print(out)?;
                    out.write_str(":")?;
                    value.print(out)?;
                }
                out.write_str("]")
            }
            Value::Record(record) => match &record.text {
                Some(text) => out.write_str(text),
                None => {
                    out.write_str("{")?;
                    Self::print_all(record.fields.iter().map(|(_, value)| value), out)?;
                    out.write_str("}")
                }
            },
        }
    }

    fn print_all<'a>(
        values: impl Iterator<Item = &'a Value>,
        out: &mut Output,
    ) -> std::fmt::Result {
        for (n, value) in values.enumerate() {
            out.write_str(if n > 0 { " " } else { "" })?;
            value.print(out)?;
        }
        Ok(())
    }

    /// Whether two plain values are equal; `None` where one is a list, a map or a struct.
    pub fn equals(&self, other: &Self) -> Option<bool> {
        let plain =
            |value: &Self| !matches!(value, Value::List(_) | Value::Map(_) | Value::Record(_));
        if !plain(self) || !plain(other) {
            return None;
        }
        Some(match (self, other) {
            (Value::Missing | Value::Nil, Value::Missing | Value::Nil) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            _ => false,
        })
    }
}

/// A float as `%v` prints it: shortest, with an exponent below 1e-4 and from 1e6.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
