//! Pure: a template as a tree.

use super::lex::{Piece, Token, pieces, tokens};
use super::{TemplateError, functions};
use std::collections::BTreeMap;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    /// `template` and `block`: a name, and the data it gets.
    Call(String, Option<Pipe>, usize),
    Break,
    Continue,
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipe {
    pub line: usize,
    /// Variables that get the value.
    pub variables: Vec<String>,
    /// `=` instead of `:=`.
    pub assigns: bool,
    pub commands: Vec<Vec<Term>>,
}

/// An operand.
#[derive(Debug)]
pub(super) enum Term {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Variable(String),
    Function(String),
    Inner(Pipe),
    /// An operand and the fields that are taken of it in turn.
    Fields(Box<Term>, Vec<String>),
}

/// A parsed template.
#[derive(Debug)]
pub(super) struct Template {
    pub nodes: Vec<Node>,
    pub defined: BTreeMap<String, Vec<Node>>,
}

/// How deep blocks and parentheses may nest.
const DEPTH: usize = 50;

/// Reads a template.
pub(super) fn parse(template: &str) -> Result<Template, TemplateError> {
    let mut actions = Vec::new();
    for piece in pieces(template)? {
        actions.push(match piece {
            Piece::Text(text) => Item::Text(text.to_owned()),
            Piece::Action(action, line) => Item::Action(Action::read(action, line)?),
        });
    }
    actions.reverse();
    let mut parser = Parser { items: actions, defined: BTreeMap::new(), depth: 0, loops: 0 };
    let (nodes, end) = parser.list()?;
    if let Some(end) = end {
        return Err(end.fail("there is nothing open here"));
    }
    Ok(Template { nodes, defined: parser.defined })
}

enum Item {
    Text(String),
    Action(Action),
}

/// The tokens of an action that are not read yet, the next one last.
struct Action {
    line: usize,
    tokens: Vec<(Token, bool)>,
}

impl Action {
    fn read(action: &str, line: usize) -> Result<Self, TemplateError> {
        let mut tokens = tokens(action, line)?;
        tokens.reverse();
        Ok(Action { line, tokens })
    }

    fn fail(&self, told: impl Into<String>) -> TemplateError {
        TemplateError::new(self.line, told)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.last().map(|(token, _)| token)
    }

    fn second(&self) -> Option<&Token> {
        self.tokens.iter().rev().nth(1).map(|(token, _)| token)
    }

    fn next(&mut self) -> Option<Token> {
        self.tokens.pop().map(|(token, _)| token)
    }

    /// The keyword that the action begins with, or an empty text.
    fn keyword(&self) -> &str {
        match self.peek() {
            Some(Token::Word(word)) => word,
            _ => "",
        }
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let found = self.keyword() == wanted;
        if found {
            self.tokens.pop();
        }
        found
    }

    fn done(&self) -> Result<(), TemplateError> {
        match self.peek() {
            None => Ok(()),
            Some(token) => Err(self.fail(format!("unexpected {token:?} in action"))),
        }
    }

    fn name(&mut self) -> Result<String, TemplateError> {
        match self.next() {
            Some(Token::Text(name)) => Ok(name),
            _ => Err(self.fail("the template's name must be a quoted string")),
        }
    }

    fn pipe(&mut self, in_range: bool, depth: usize) -> Result<Pipe, TemplateError> {
        if depth > DEPTH {
            return Err(self.fail(format!("parentheses nest deeper than {DEPTH}")).ours());
        }
        let (variables, assigns) = self.declared(in_range)?;
        let mut pipe = Pipe { line: self.line, variables, assigns, commands: Vec::new() };
        loop {
            let mut terms = Vec::new();
            while !matches!(self.peek(), None | Some(Token::Pipe | Token::Close)) {
                terms.push(self.operand(depth)?);
            }
            if terms.is_empty() {
                return Err(self.fail("missing value for command"));
            }
            let constant = |term: &Term| {
                !matches!(term, Term::Function(_) | Term::Fields(..) | Term::Inner(_))
            };
            if !pipe.commands.is_empty() && constant(&terms[0]) {
                return Err(self.fail("only a function can take the value of a pipeline"));
            }
            pipe.commands.push(terms);
            if self.peek() != Some(&Token::Pipe) {
                return Ok(pipe);
            }
            self.next();
        }
    }

    /// `$a :=`, `$a =`, and in a range `$a, $b :=`.
    fn declared(&mut self, in_range: bool) -> Result<(Vec<String>, bool), TemplateError> {
        let mut variables = Vec::new();
        if !matches!(self.second(), Some(Token::Declare | Token::Assign | Token::Comma)) {
            return Ok((variables, false));
        }
        while let Some(Token::Variable(name)) = self.peek() {
            variables.push(name.clone());
            self.next();
            match self.next() {
                Some(Token::Comma) if in_range && variables.len() == 1 => {}
                Some(token @ (Token::Declare | Token::Assign)) => {
                    return Ok((variables, token == Token::Assign));
                }
                _ => return Err(self.fail("too many variables in a declaration")),
            }
        }
        Err(self.fail("a declaration needs a variable on its left"))
    }

    fn operand(&mut self, depth: usize) -> Result<Term, TemplateError> {
        let term = match self.next() {
            Some(Token::Dot) => Term::Dot,
            Some(Token::Field(name)) => Term::Fields(Box::new(Term::Dot), vec![name]),
            Some(Token::Variable(name)) => Term::Variable(name),
            Some(Token::Int(int)) => Term::Int(int),
            Some(Token::Float(float)) => Term::Float(float),
            Some(Token::Text(text)) => Term::Text(text),
            Some(Token::Word(word)) => match word.as_str() {
                "true" | "false" => Term::Bool(word == "true"),
                "nil" => Term::Nil,
                name if functions::known(name) => Term::Function(word),
                name => {
                    let told = format!("the function {name:?} is not supported");
                    return Err(self.fail(told).ours());
                }
            },
            Some(Token::Open) => {
                let pipe = self.pipe(false, depth + 1)?;
                if self.next() != Some(Token::Close) {
                    return Err(self.fail("unclosed left paren"));
                }
                Term::Inner(pipe)
            }
            token => return Err(self.fail(format!("unexpected {token:?} in operand"))),
        };
        let (first, mut fields) = match term {
            Term::Fields(first, fields) => (*first, fields),
            other => (other, Vec::new()),
        };
        while let Some((Token::Field(name), true)) = self.tokens.last() {
            fields.push(name.clone());
            self.tokens.pop();
        }
        if !fields.is_empty()
            && matches!(
                first,
                Term::Nil | Term::Bool(_) | Term::Int(_) | Term::Float(_) | Term::Text(_)
            )
        {
            return Err(self.fail(format!("unexpected .{} after a constant", fields[0])));
        }
        if let Some((token @ (Token::Dot | Token::Text(_) | Token::Variable(_)), true)) =
            self.tokens.last()
        {
            return Err(self.fail(format!("unexpected {token:?}: a space is missing")));
        }
        Ok(if fields.is_empty() { first } else { Term::Fields(Box::new(first), fields) })
    }
}

struct Parser {
    /// What is not read yet, the next one last.
    items: Vec<Item>,
    defined: BTreeMap<String, Vec<Node>>,
    depth: usize,
    loops: usize,
}

impl Parser {
    /// Nodes up to an `else` or `end` that is not theirs, which is handed back.
    fn list(&mut self) -> Result<(Vec<Node>, Option<Action>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(item) = self.items.pop() {
            match item {
                Item::Text(text) => nodes.push(Node::Text(text)),
                Item::Action(action) if matches!(action.keyword(), "end" | "else") => {
                    return Ok((nodes, Some(action)));
                }
                Item::Action(action) => nodes.extend(self.action(action)?),
            }
        }
        Ok((nodes, None))
    }

    fn action(&mut self, mut action: Action) -> Result<Option<Node>, TemplateError> {
        let keyword = action.keyword().to_owned();
        match keyword.as_str() {
            "if" | "with" | "range" => {
                action.next();
                self.control(&keyword, action).map(Some)
            }
            "break" | "continue" => {
                action.next();
                action.done()?;
                if self.loops == 0 {
                    return Err(action.fail(format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
                }
                Ok(Some(if keyword == "break" { Node::Break } else { Node::Continue }))
            }
            "define" => {
                action.next();
                let name = action.name()?;
                action.done()?;
                if self.depth > 0 {
                    return Err(action.fail("define must stand outside of other blocks"));
                }
                let body = self.whole_body(&action)?;
                if self.defined.contains_key(&name) {
                    return Err(action.fail(format!("template {name:?} is defined twice")));
                }
                self.defined.insert(name, body);
                Ok(None)
            }
            "block" | "template" => {
                action.next();
                let name = action.name()?;
                let data = match action.peek() {
                    None if keyword == "block" => {
                        return Err(action.fail("missing value for block clause"));
                    }
                    None => None,
                    Some(_) => Some(action.pipe(false, 0)?),
                };
                action.done()?;
                if keyword == "block" {
                    let body = self.whole_body(&action)?;
                    self.defined.entry(name.clone()).or_insert(body);
                }
                Ok(Some(Node::Call(name, data, action.line)))
            }
            _ => {
                let pipe = action.pipe(false, 0)?;
                action.done()?;
                Ok(Some(Node::Print(pipe)))
            }
        }
    }

    /// The body of `define` or `block`, which has no `else`.
    fn whole_body(&mut self, opening: &Action) -> Result<Vec<Node>, TemplateError> {
        let loops = std::mem::take(&mut self.loops);
        let (body, end) = self.nested(opening)?;
        self.loops = loops;
        let unclosed = || opening.fail("this block is not closed by {{end}}");
        let mut end = end.ok_or_else(unclosed)?;
        if !end.take_word("end") {
            return Err(unclosed());
        }
        end.done().map(|()| body)
    }

    fn nested(&mut self, opening: &Action) -> Result<(Vec<Node>, Option<Action>), TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(opening.fail(format!("blocks nest deeper than {DEPTH}")).ours());
        }
        let list = self.list()?;
        self.depth -= 1;
        Ok(list)
    }

    fn control(&mut self, keyword: &str, mut action: Action) -> Result<Node, TemplateError> {
        let pipe = action.pipe(keyword == "range", 0)?;
        action.done()?;
        self.loops += usize::from(keyword == "range");
        let (body, end) = self.nested(&action)?;
        self.loops -= usize::from(keyword == "range");
        let unclosed = || action.fail(format!("this {keyword} is not closed by {{{{end}}}}"));
        let mut end = end.ok_or_else(unclosed)?;
        let mut otherwise = Vec::new();
        if end.take_word("else") {
            let chained = end.keyword().to_owned();
            if (chained == "if" || chained == "with") && keyword != "range" {
                // `else if` shares its end with the if before.
                end.next();
                self.depth += 1;
                if self.depth > DEPTH {
                    return Err(end.fail(format!("blocks nest deeper than {DEPTH}")).ours());
                }
                otherwise.push(self.control(&chained, end)?);
                self.depth -= 1;
                return Ok(Self::made(keyword, pipe, body, otherwise));
            }
            end.done()?;
            let (nodes, close) = self.nested(&action)?;
            otherwise = nodes;
            end = close.ok_or_else(unclosed)?;
        }
        if !end.take_word("end") {
            return Err(end.fail("expected {{end}}"));
        }
        end.done()?;
        Ok(Self::made(keyword, pipe, body, otherwise))
    }

    fn made(keyword: &str, pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node>) -> Node {
        match keyword {
            "if" => Node::If(pipe, body, otherwise),
            "with" => Node::With(pipe, body, otherwise),
            _ => Node::Range(pipe, body, otherwise),
        }
    }
}
