//! Pure: runs a template over its data, within bounds.

use super::TemplateError;
use super::functions;
use super::parse::{Node, Pipe, Template, Term};
use super::value::{Output, Value};
use std::fmt::Write;
use std::rc::Rc;

/// Bytes of a message, and of any text that is made on the way.
pub(super) const LONGEST: usize = 64 * 1024;

/// Nodes, commands, terms and list entries that one run may look at, and what `functions/cost.rs`
/// counts. A message of 64 KiB made of single characters takes about 130,000; a run of this many
/// takes some tens of milliseconds.
const STEPS: usize = 200_000;

/// How deep templates may call each other.
const CALLS: usize = 32;

/// Runs a template.
pub(super) fn run(template: &Template, data: Value) -> Result<String, TemplateError> {
    let out = Output { text: String::new(), limit: LONGEST };
    let root = ("$".to_owned(), data.clone());
    let mut exec = Exec { template, variables: vec![root], out, steps: 0, calls: 0, line: 1 };
    exec.walk(&template.nodes, &data)?;
    Ok(exec.out.text)
}

/// Whether a loop goes on.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Exec<'t> {
    template: &'t Template,
    /// The innermost last.
    variables: Vec<(String, Value)>,
    out: Output,
    steps: usize,
    calls: usize,
    /// Line of the action that runs.
    line: usize,
}

impl Exec<'_> {
    fn fail<T>(&self, told: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::new(self.line, told))
    }

    /// The same for a limit of ours.
    fn limit<T>(&self, told: String) -> Result<T, TemplateError> {
        Err(TemplateError::new(self.line, told).ours())
    }

    fn step(&mut self, cost: usize) -> Result<(), TemplateError> {
        self.steps = self.steps.saturating_add(cost);
        if self.steps > STEPS {
            return self.limit(format!("the template takes more than {STEPS} steps"));
        }
        Ok(())
    }

    fn put(&mut self, text: &str) -> Result<(), TemplateError> {
        match self.out.write_str(text) {
            Ok(()) => Ok(()),
            Err(_) => self.too_long(),
        }
    }

    fn too_long(&self) -> Result<(), TemplateError> {
        self.limit(format!("the message is longer than {LONGEST} bytes"))
    }

    fn walk(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            self.step(1)?;
            let flow = match node {
                Node::Text(text) => self.put(text).map(|()| Flow::Next)?,
                Node::Print(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        self.print(&value)?;
                    }
                    Flow::Next
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
                Node::If(pipe, ..) | Node::With(pipe, ..) | Node::Range(pipe, ..) => {
                    let mark = self.variables.len();
                    let value = self.pipe(pipe, dot)?;
                    let flow = self.control(node, value, dot)?;
                    self.variables.truncate(mark);
                    flow
                }
                Node::Call(name, data, line) => {
                    self.line = *line;
                    self.call(name, data.as_ref(), dot)?;
                    Flow::Next
                }
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn control(&mut self, node: &Node, value: Value, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::If(_, body, otherwise) => {
                self.walk(if value.truth() { body } else { otherwise }, dot)
            }
            Node::With(_, body, _) if value.truth() => self.walk(body, &value),
            Node::With(_, _, otherwise) => self.walk(otherwise, dot),
            Node::Range(pipe, body, otherwise) => self.range(pipe, &value, (body, otherwise), dot),
            _ => Ok(Flow::Next),
        }
    }

    fn print(&mut self, value: &Value) -> Result<(), TemplateError> {
        if matches!(value, Value::Missing | Value::Nil) {
            return self.put("<no value>");
        }
        match value.print(&mut self.out) {
            Ok(()) => Ok(()),
            Err(_) => self.too_long(),
        }
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        value: &Value,
        (body, otherwise): (&[Node], &[Node]),
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let length = match value {
            Value::List(values) => values.len(),
            Value::Map(entries) => entries.len(),
            Value::Int(count) => usize::try_from(*count).unwrap_or(0),
            Value::Missing | Value::Nil => 0,
            other => return self.fail(format!("range can't iterate over a {}", other.kind())),
        };
        if length == 0 {
            return self.walk(otherwise, dot);
        }
        if matches!(value, Value::Int(_)) && pipe.variables.len() > 1 {
            return self.fail("can't iterate over a number with more than one variable");
        }
        // The variables of the range itself stand at the top now.
        let mark = self.variables.len();
        for n in 0..length {
            self.step(1)?;
            let count = || Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
            let (index, element) = match value {
                Value::List(values) => (count(), values[n].clone()),
                Value::Map(entries) => entries[n].clone(),
                _ => (Value::Missing, count()),
            };
            match pipe.variables.as_slice() {
                [one] => self.set(one, element.clone())?,
                [first, second] => {
                    self.set(first, index)?;
                    self.set(second, element.clone())?;
                }
                _ => {}
            }
            let flow = self.walk(body, &element)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    /// Gives the innermost variable of a name another value.
    fn set(&mut self, name: &str, value: Value) -> Result<(), TemplateError> {
        let place = self.variable(name)?;
        self.variables[place].1 = value;
        Ok(())
    }

    /// Where the innermost variable of a name is. Thousands may be in the way.
    fn variable(&mut self, name: &str) -> Result<usize, TemplateError> {
        let Some(place) = self.variables.iter().rposition(|(known, _)| known == name) else {
            return self.fail(format!("undefined variable {name}"));
        };
        self.step((self.variables.len() - place) / functions::CHEAP)?;
        Ok(place)
    }

    fn call(&mut self, name: &str, data: Option<&Pipe>, dot: &Value) -> Result<(), TemplateError> {
        let Some(body) = self.template.defined.get(name) else {
            return self.fail(format!("template {name:?} is not defined"));
        };
        if self.calls >= CALLS {
            return self.limit(format!("templates call each other more than {CALLS} deep"));
        }
        let data = match data {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Value::Missing,
        };
        self.calls += 1;
        let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), data.clone())]);
        self.walk(body, &data)?;
        self.variables = outer;
        self.calls -= 1;
        Ok(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        self.line = pipe.line;
        let mut value = None;
        for command in &pipe.commands {
            self.step(1)?;
            value = Some(self.command(command, value, dot)?);
        }
        let value = value.unwrap_or(Value::Missing);
        for variable in &pipe.variables {
            if pipe.assigns {
                self.set(variable, value.clone())?;
            } else {
                self.variables.push((variable.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(
        &mut self,
        terms: &[Term],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let Some((first, rest)) = terms.split_first() else { return Ok(Value::Missing) };
        match first {
            Term::Function(name) => self.function(name, rest, last, dot),
            Term::Nil => self.fail("nil is not a command"),
            _ if !rest.is_empty() || last.is_some() => {
                self.fail("can't give an argument to what is no function")
            }
            _ => self.term(first, dot),
        }
    }

    fn function(
        &mut self,
        name: &str,
        terms: &[Term],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        self.step(terms.len())?;
        if name == "and" || name == "or" {
            // What decides comes first: the rest is not looked at.
            let mut value = None;
            for term in terms {
                let next = self.term(term, dot)?;
                if next.truth() != (name == "and") {
                    return Ok(next);
                }
                value = Some(next);
            }
            return match last.or(value) {
                Some(value) => Ok(value),
                None => {
                    self.fail(format!("wrong number of args for {name}: want at least 1 got 0"))
                }
            };
        }
        let mut args = Vec::with_capacity(terms.len() + 1);
        for term in terms {
            args.push(self.term(term, dot)?);
        }
        args.extend(last);
        self.step(functions::cost_before(name, &args))?;
        let value = match functions::call(name, &args) {
            Ok(value) => value,
            Err(told) if functions::is_ours(&told) => {
                return self.limit(format!("{name}: {told}"));
            }
            Err(told) => return self.fail(format!("{name}: {told}")),
        };
        self.step(functions::cost_after(name, &value))?;
        Ok(value)
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Value, TemplateError> {
        Ok(match term {
            Term::Dot => dot.clone(),
            Term::Nil => Value::Nil,
            Term::Bool(value) => Value::Bool(*value),
            Term::Int(value) => Value::Int(*value),
            Term::Float(value) => Value::Float(*value),
            Term::Text(value) => Value::text(value),
            Term::Variable(name) => {
                let place = self.variable(name)?;
                self.variables[place].1.clone()
            }
            Term::Function(name) => self.function(name, &[], None, dot)?,
            Term::Inner(pipe) => {
                let (mark, line) = (self.variables.len(), self.line);
                let value = self.pipe(pipe, dot)?;
                self.variables.truncate(mark);
                self.line = line;
                value
            }
            Term::Fields(first, names) => {
                let mut value = self.term(first, dot)?;
                for name in names {
                    self.step(1 + functions::size(&value) / functions::CHEAP)?;
                    value = self.field(&value, name)?;
                }
                value
            }
        })
    }

    fn field(&self, value: &Value, name: &str) -> Result<Value, TemplateError> {
        match value {
            Value::Missing | Value::Nil => Ok(Value::Missing),
            Value::Record(record) => {
                let mut named = record.fields.iter().chain(&record.methods);
                match named.find(|(known, _)| *known == name) {
                    Some((_, value)) => Ok(value.clone()),
                    None => self.fail(format!("can't evaluate field {name} in a {}", record.kind)),
                }
            }
            Value::Map(entries) => {
                let key = |key: &Value| matches!(key, Value::Text(text) if **text == *name);
                if entries.iter().any(|(key, _)| !matches!(key, Value::Text(_))) {
                    return self.fail(format!("can't take field {name} of this map"));
                }
                let found = entries.iter().find(|(k, _)| key(k));
                Ok(found.map_or(Value::Missing, |(_, value)| value.clone()))
            }
            other => self.fail(format!("can't evaluate field {name} in a {}", other.kind())),
        }
    }
}

/// A map with its keys in Go's order.
pub(super) fn sorted_map(mut entries: Vec<(Value, Value)>) -> Value {
    let text = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        _ => Rc::from(""),
    };
    entries.sort_by_key(|(key, _)| text(key));
    Value::Map(Rc::new(entries))
}
