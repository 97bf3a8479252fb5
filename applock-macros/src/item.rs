//! What the attribute stands on: a function that can run under a lock, or something
//! else, and why that can't.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::visit::{self, Visit};
use syn::{
    Attribute, FnArg, GenericParam, Ident, Pat, PatIdent, Safety, Signature, Token, Type,
    Visibility,
};

use crate::async_trait;
use crate::mistakes::Mistakes;

/// A function as it was written. Its body stays tokens, so that what we don't
/// understand in there is the compiler's to judge.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) defaultness: Option<Token![default]>,
    pub(crate) sig: Signature,
    /// `#![…]` at the head of the body; they must stay at the head of the new one.
    pub(crate) inner_attrs: Vec<Attribute>,
    pub(crate) body: Group,
    /// The async block that `#[async_trait]` has made of the body.
    pub(crate) async_trait: Option<async_trait::Boxed>,
}

impl Function {
    /// Reads the annotated item; `None` after a mistake was reported.
    pub(crate) fn read(item: TokenStream, mistakes: &mut Mistakes) -> Option<Self> {
        let keyword = keyword(item.clone());
        if let Some(what) = keyword.as_ref().and_then(|token| other_item(token, &item)) {
            mistakes.at(
                keyword,
                format_args!("#[singleton] goes on a function with a body, and this is {what}"),
            );
            return None;
        }
        match (|input: ParseStream| parse(input, mistakes)).parse2(item) {
            Ok(function) => function,
            Err(error) => {
                mistakes.add(error);
                None
            }
        }
    }

    pub(crate) fn is_async_trait(&self) -> bool {
        self.async_trait.is_some()
    }

    /// The names that `{…}` may capture.
    pub(crate) fn capturable(&self) -> Vec<String> {
        let consts = self
            .sig
            .generics
            .params
            .iter()
            .filter_map(|param| match param {
                GenericParam::Const(param) => Some(&param.ident),
                _ => None,
            });
        let bindings = self.bindings();
        bindings
            .iter()
            .map(|binding| &binding.ident)
            .chain(consts)
            .map(|ident| ident.unraw().to_string())
            .collect()
    }

    /// Every name that the patterns of the signature bind, in order.
    pub(crate) fn bindings(&self) -> Vec<Binding> {
        let mut bindings: Vec<Binding> = Vec::new();
        for argument in &self.sig.inputs {
            if let FnArg::Typed(argument) = argument {
                let mut names = Names(Vec::new());
                names.visit_pat(&argument.pat);
                let earlier = bindings.len();
                for pattern in names.0 {
                    // `Ok(x) | Err(x)` binds one name. Two arguments of one name are
                    // told apart by `#[cfg]`, or are the compiler's to refuse.
                    if bindings[earlier..]
                        .iter()
                        .all(|known| known.ident != pattern.ident)
                    {
                        bindings.push(Binding {
                            attrs: argument.attrs.clone(),
                            mutability: pattern.by_ref.map_or(pattern.mutability, |_| None),
                            ident: pattern.ident,
                        });
                    }
                }
            }
        }
        bindings
    }

    /// Whether the body may end before its last expression: by `return`, by `?`, or by either in a
    /// macro (`bail!`). A body that asks who has called it is not to be moved into a closure.
    pub(crate) fn may_leave_early(&self) -> bool {
        let tracks = |attr: &Attribute| attr.path().is_ident("track_caller");
        !self.attrs.iter().any(tracks) && leaves_early(self.body.stream())
    }

    /// Whether the function owns its `self`, so that dropping it belongs to the body.
    pub(crate) fn owns_self(&self) -> bool {
        use syn::ReceiverKind::{Reference, Typed, Value};
        match self.sig.receiver().map(|receiver| &receiver.kind) {
            None | Some(Reference(..)) => false,
            Some(Value) => true,
            Some(Typed(_, ty)) => !matches!(**ty, Type::Reference(_)),
            // A kind that this version of syn does not know: treated as owned, which
            // costs nothing.
            #[allow(unreachable_patterns)]
            Some(_) => true,
        }
    }
}

/// What stands in a closure or a function inside of it counts too: better once too often.
fn leaves_early(tokens: TokenStream) -> bool {
    let is_bang = |token: &TokenTree| matches!(token, TokenTree::Punct(it) if it.as_char() == '!');
    let mut before = None;
    for token in tokens {
        let leaves = match &token {
            TokenTree::Ident(word) => word == "return",
            TokenTree::Punct(mark) => mark.as_char() == '?',
            TokenTree::Group(group) => {
                before.as_ref().is_some_and(is_bang) || leaves_early(group.stream())
            }
            TokenTree::Literal(_) => false,
        };
        if leaves {
            return true;
        }
        before = Some(token);
    }
    false
}

/// One name bound by the signature.
pub(crate) struct Binding {
    /// The attributes of its argument (`#[cfg]`, `#[allow]`).
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) mutability: Option<Token![mut]>,
    pub(crate) ident: Ident,
}

struct Names(Vec<PatIdent>);

impl<'ast> Visit<'ast> for Names {
    fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
        self.0.push(pattern.clone());
        visit::visit_pat_ident(self, pattern);
    }

    // Names inside of expressions (`const { … }`) are not bound here.
    fn visit_expr(&mut self, _: &'ast syn::Expr) {}
}

fn parse(input: ParseStream, mistakes: &mut Mistakes) -> syn::Result<Option<Function>> {
    let attrs = input.call(Attribute::parse_outer)?;
    let vis = input.parse()?;
    let defaultness = input.parse()?;
    let sig: Signature = input.parse()?;
    if let Safety::Safe(safe) = &sig.safety {
        mistakes.at(
            safe,
            "a `safe fn` of an `extern` block has no body to run under a lock",
        );
    }
    if input.peek(Token![;]) {
        let semicolon: Token![;] = input.parse()?;
        mistakes.at(
            semicolon,
            "this declaration has no body to run under a lock; put #[singleton] on the methods \
             of the impls, or give it a default body",
        );
        return Ok(None);
    }
    let body = body(input)?;
    let (inner_attrs, body) = without_inner_attrs(body)?;
    let async_trait = async_trait::Boxed::find(&sig, &body);
    Ok(Some(Function {
        attrs,
        vis,
        defaultness,
        sig,
        inner_attrs,
        body,
        async_trait,
    }))
}

/// The braces and what is in them, out of any invisible group that `macro_rules!`
/// has put around them.
fn body(input: ParseStream) -> syn::Result<Group> {
    let mut found: TokenTree = input.parse()?;
    loop {
        match found {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return Ok(group),
            TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
                let mut inside = group.stream().into_iter();
                match (inside.next(), inside.next()) {
                    (Some(only), None) => found = only,
                    _ => return Err(syn::Error::new_spanned(group, "expected a function's body")),
                }
            }
            other => return Err(syn::Error::new_spanned(other, "expected a function's body")),
        }
    }
}

fn without_inner_attrs(body: Group) -> syn::Result<(Vec<Attribute>, Group)> {
    let split = |input: ParseStream| {
        let attrs = input.call(Attribute::parse_inner)?;
        Ok((attrs, input.parse::<TokenStream>()?))
    };
    let (attrs, rest) = split.parse2(body.stream())?;
    if attrs.is_empty() {
        // The untouched group keeps the spans of its two braces apart.
        return Ok((attrs, body));
    }
    let mut without = Group::new(Delimiter::Brace, rest);
    without.set_span(body.span());
    Ok((attrs, without))
}

/// The word that says what kind of item this is.
fn keyword(item: TokenStream) -> Option<TokenTree> {
    let find = |input: ParseStream| {
        let _ = input.call(Attribute::parse_outer)?;
        let _: Visibility = input.parse()?;
        let found = input.parse::<Option<TokenTree>>()?;
        let _: TokenStream = input.parse()?;
        Ok(found)
    };
    find.parse2(item).ok().flatten()
}

/// What the item is, if it is certainly no function.
fn other_item(keyword: &TokenTree, item: &TokenStream) -> Option<&'static str> {
    let TokenTree::Ident(word) = keyword else {
        return Some(match keyword {
            TokenTree::Punct(bar) if bar.as_char() == '|' => "a closure",
            _ => "something else",
        });
    };
    let is_function = item
        .clone()
        .into_iter()
        .any(|token| matches!(&token, TokenTree::Ident(ident) if ident == "fn"));
    Some(match word.to_string().as_str() {
        "struct" => "a struct",
        "enum" => "an enum",
        "union" if !is_function => "a union",
        "trait" => "a trait; annotate its methods that have a body",
        "impl" => "an impl; annotate its methods",
        "mod" => "a module; annotate its functions",
        "type" => "a type alias",
        "use" => "an import",
        "static" => "a static",
        "const" if !is_function => "a constant",
        "unsafe" if item.to_string().contains("unsafe impl") => "an impl; annotate its methods",
        "unsafe" if item.to_string().contains("unsafe trait") => {
            "a trait; annotate its methods that have a body"
        }
        "move" => "a closure",
        "extern" | "unsafe" if !is_function => "a block of foreign functions, or an `extern crate`",
        "macro_rules" => "a macro's definition",
        "let" => "a `let` statement",
        "fn" | "async" | "const" | "unsafe" | "extern" | "default" | "safe" => return None,
        _ if is_function => return None,
        _ => "a macro's call; annotate the function that it makes",
    })
}

/// The signature with the names that the body will bind: without `mut`, and with a
/// name for what has none.
pub(crate) fn outer_signature(function: &Function, unnamed: &[Option<Ident>]) -> Signature {
    let mut sig = function.sig.clone();
    for (argument, name) in sig.inputs.iter_mut().zip(unnamed) {
        if let FnArg::Typed(argument) = argument {
            if let Some(name) = name {
                *argument.pat = Pat::Ident(PatIdent {
                    attrs: Vec::new(),
                    by_ref: None,
                    mutability: None,
                    ident: name.clone(),
                    subpat: None,
                });
            }
            Unmuted.visit_pat(&mut argument.pat);
            // An expectation holds where the name is bound for the body; it would
            // not be met here, where the name is always used.
            argument
                .attrs
                .retain(|attr| !attr.path().is_ident("expect"));
        }
    }
    sig
}

struct Unmuted;

impl Unmuted {
    fn visit_pat(&mut self, pattern: &mut Pat) {
        syn::visit_mut::VisitMut::visit_pat_mut(self, pattern);
    }
}

impl syn::visit_mut::VisitMut for Unmuted {
    fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
        // `ref mut x` is another thing: it says how to bind.
        if pattern.by_ref.is_none() {
            pattern.mutability = None;
        }
        syn::visit_mut::visit_pat_ident_mut(self, pattern);
    }

    fn visit_expr_mut(&mut self, _: &mut syn::Expr) {}
}

/// A name for each argument that is only `_`, so that the body can drop it.
pub(crate) fn unnamed(sig: &Signature) -> Vec<Option<Ident>> {
    let name = |(at, argument): (usize, &FnArg)| match argument {
        FnArg::Typed(argument) if matches!(*argument.pat, Pat::Wild(_)) => Some(Ident::new(
            &format!("unnamed_{at}"),
            proc_macro2::Span::mixed_site(),
        )),
        _ => None,
    };
    sig.inputs.iter().enumerate().map(name).collect()
}

/// Whether `token` stands anywhere in `tokens`.
pub(crate) fn mentions(tokens: impl ToTokens, name: &Ident) -> bool {
    fn search(tokens: TokenStream, name: &Ident) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == *name,
            TokenTree::Group(group) => search(group.stream(), name),
            _ => false,
        })
    }
    search(tokens.into_token_stream(), name)
}
