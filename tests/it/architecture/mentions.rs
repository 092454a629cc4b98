//! What one source file mentions: paths, calls, modules, string literals.
//!
//! `syn` parses the file; the tokens of macro calls, which `syn` leaves alone, are searched for
//! paths and literals as well. Comments and attributes on items mention nothing.

use syn::buffer::Cursor;
use syn::parse::{ParseStream, Parser};
use syn::visit::{self, Visit};

/// Which code of a file is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    All,
    /// Without items under `#[cfg(test)]` and `#[test]`.
    Shipped,
}

/// A path as it is written, and the inline modules around it.
#[derive(Debug, PartialEq, Eq)]
pub struct Mention {
    pub inside: Vec<String>,
    pub segments: Vec<String>,
}

/// A `mod name;` line.
#[derive(Debug, PartialEq, Eq)]
pub struct ModLine {
    pub inside: Vec<String>,
    pub name: String,
    pub test: bool,
}

/// Everything that the checks ask about a file.
#[derive(Default)]
pub struct Mentions {
    /// Paths in the order of the file; `async`, `await` and a call of `now` count as paths.
    pub paths: Vec<Mention>,
    pub mods: Vec<ModLine>,
    /// Modules, inline ones too, with a visibility of their own.
    pub exposed: Vec<String>,
    /// String literals, those in macro calls as they are written between the quotes.
    pub literals: Vec<String>,
    inside: Vec<String>,
    shipped: bool,
}

impl Mentions {
    /// Reads a file.
    pub fn of(text: &str, scope: Scope) -> Result<Mentions, String> {
        let file = syn::parse_file(text).map_err(|error| error.to_string())?;
        let mut mentions = Mentions { shipped: scope == Scope::Shipped, ..Mentions::default() };
        mentions.visit_file(&file);
        Ok(mentions)
    }

    fn path(&mut self, segments: Vec<String>) {
        self.paths.push(Mention { inside: self.inside.clone(), segments });
    }

    fn word(&mut self, word: &str) {
        self.path(vec![word.to_owned()]);
    }

    fn use_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.path(with(&name.ident)),
            syn::UseTree::Rename(name) => self.path(with(&name.ident)),
            syn::UseTree::Glob(_) => self.path(before.to_vec()),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(before, tree));
            }
        }
    }

    /// Paths and literals among the tokens of a macro call.
    fn tokens(&mut self, mut cursor: Cursor<'_>) {
        let mut path: Vec<String> = Vec::new();
        while !cursor.eof() {
            if let Some((word, rest)) = cursor.ident() {
                path.push(word.to_string());
                match colons(rest) {
                    Some(rest) => cursor = rest,
                    None => {
                        self.path(std::mem::take(&mut path));
                        cursor = rest;
                    }
                }
                continue;
            }
            if !path.is_empty() {
                self.path(std::mem::take(&mut path));
            }
            if let Some((inner, _, _, rest)) = cursor.any_group() {
                self.tokens(inner);
                cursor = rest;
            } else if let Some((literal, rest)) = cursor.literal() {
                let written = literal.to_string();
                if let Some((_, quoted)) = written.split_once('"') {
                    self.literals.push(quoted.trim_end_matches(['"', '#']).to_owned());
                }
                cursor = rest;
            } else {
                let Some((_, rest)) = cursor.token_tree() else { return };
                cursor = rest;
            }
        }
    }
}

fn colons(cursor: Cursor<'_>) -> Option<Cursor<'_>> {
    let (first, rest) = cursor.punct()?;
    let (second, rest) = rest.punct()?;
    (first.as_char() == ':' && second.as_char() == ':').then_some(rest)
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        syn::Meta::NameValue(_) => false,
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Mentions {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !(self.shipped && is_test(attributes(item))) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !(self.shipped && is_test(&item.attrs)) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        if !matches!(item.vis, syn::Visibility::Inherited) {
            self.exposed.push(name.clone());
        }
        if item.content.is_none() {
            let (inside, test) = (self.inside.clone(), is_test(&item.attrs));
            self.mods.push(ModLine { inside, name, test });
            return;
        }
        self.inside.push(name);
        visit::visit_item_mod(self, item);
        self.inside.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        let read = |input: ParseStream<'_>| {
            input.step(|cursor| {
                self.tokens(*cursor);
                let mut rest = *cursor;
                while let Some((_, next)) = rest.token_tree() {
                    rest = next;
                }
                Ok(((), rest))
            })
        };
        // The closure takes every token, so nothing is left that could be an error.
        let _: syn::Result<()> = read.parse2(call.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        self.literals.push(literal.value());
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.asyncness.is_some() {
            self.word("async");
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.word("async");
        visit::visit_expr_async(self, block);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        if closure.asyncness.is_some() {
            self.word("async");
        }
        visit::visit_expr_closure(self, closure);
    }

    fn visit_expr_await(&mut self, wait: &'ast syn::ExprAwait) {
        self.word("await");
        visit::visit_expr_await(self, wait);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func
            && path.path.is_ident("now")
        {
            self.word("now()");
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "now" {
            self.word("now()");
        }
        visit::visit_expr_method_call(self, call);
    }
}
