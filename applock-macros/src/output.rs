//! Return types: which of them can say 'busy', and how they are written in a body.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{
    GenericArgument, PathArguments, ReturnType, Signature, Token, Type, TypeInfer, TypeParamBound,
    TypePath,
};

use crate::mistakes::Mistakes;

/// A function's return type.
pub(crate) struct Output {
    ty: Option<Type>,
    /// Where errors about it belong.
    place: Span,
}

impl Output {
    pub(crate) fn of(sig: &Signature) -> Self {
        match &sig.output {
            ReturnType::Default => Self {
                ty: None,
                place: sig.ident.span(),
            },
            ReturnType::Type(_, ty) => Self::new(ty),
        }
    }

    pub(crate) fn new(ty: &Type) -> Self {
        Self {
            ty: Some(ty.clone()),
            place: ty.span(),
        }
    }

    /// Our hygiene, at the place of the return type.
    pub(crate) fn span(&self) -> Span {
        self.place.resolved_at(Span::mixed_site())
    }

    /// The type as an expression's annotation: `_` for each `impl Trait`, and a long
    /// way round for `!`, which stable Rust takes nowhere but after `->`.
    pub(crate) fn annotation(&self, krate: &TokenStream) -> TokenStream {
        let span = self.span();
        match &self.ty {
            None => quote_spanned!(span=> ()),
            Some(ty) if is_never(ty) => {
                quote_spanned!(span=> <fn() -> ! as #krate::__private::Returns>::Value)
            }
            Some(ty) => {
                let mut ty = ty.clone();
                Erase.visit_type_mut(&mut ty);
                quote!(#ty)
            }
        }
    }

    /// Whether the whole type is `impl Trait`, so that no trait can be asked about it.
    pub(crate) fn is_opaque(&self) -> bool {
        self.ty
            .as_ref()
            .is_some_and(|ty| matches!(peeled(ty), Type::ImplTrait(_)))
    }

    /// Whether it returns a value: neither nothing, nor never.
    pub(crate) fn has_value(&self) -> bool {
        matches!(&self.ty, Some(ty) if !is_never(ty))
    }

    /// Whether it may be a `Result`, perhaps by another name, that the runtime can be shown. Not if
    /// it promises a closure, which would lose its signature.
    pub(crate) fn may_be_result(&self) -> bool {
        const OTHERS: [&str; 19] = [
            "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16",
            "u32", "u64", "u128", "usize", "Option", "String", "Vec",
        ];
        let Some(ty) = &self.ty else {
            return false;
        };
        match peeled(ty) {
            Type::Path(path) => {
                let last = path.path.segments.last();
                let is_other = last.is_some_and(|last| OTHERS.iter().any(|it| last.ident == it));
                !is_other && !self.promises_closure()
            }
            Type::Macro(_) => true,
            _ => false,
        }
    }

    /// Whether every part of the type is written, so that the compiler can be asked about it:
    /// no `impl Trait`, which would be `_`, and not `!`.
    pub(crate) fn is_whole(&self) -> bool {
        let mut search = Opaque(false);
        match &self.ty {
            Some(ty) if !is_never(ty) => search.visit_type(ty),
            _ => return false,
        }
        !search.0
    }

    /// Whether the type promises a closure (`impl Fn(&T) -> &U`): the body must then
    /// stand where the compiler still knows what is expected of it.
    pub(crate) fn promises_closure(&self) -> bool {
        let mut search = Closures(false);
        if let Some(ty) = &self.ty {
            search.visit_type(ty);
        }
        search.0
    }
}

/// The type inside parentheses and invisible groups.
fn peeled(ty: &Type) -> &Type {
    match ty {
        Type::Paren(paren) => peeled(&paren.elem),
        Type::Group(group) => peeled(&group.elem),
        other => other,
    }
}

fn is_never(ty: &Type) -> bool {
    matches!(peeled(ty), Type::Never(_))
}

struct Erase;

impl VisitMut for Erase {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::ImplTrait(opaque) = ty {
            let underscore_token = Token![_](opaque.impl_token.span);
            *ty = Type::Infer(TypeInfer {
                attrs: Vec::new(),
                underscore_token,
            });
        }
        visit_mut::visit_type_mut(self, ty);
    }
}

struct Opaque(bool);

impl<'ast> Visit<'ast> for Opaque {
    fn visit_type_impl_trait(&mut self, _: &'ast syn::TypeImplTrait) {
        self.0 = true;
    }
}

struct Closures(bool);

impl<'ast> Visit<'ast> for Closures {
    fn visit_type_impl_trait(&mut self, opaque: &'ast syn::TypeImplTrait) {
        self.0 |= opaque.bounds.iter().any(|bound| {
            matches!(bound, TypeParamBound::Trait(bound) if bound.path.segments.iter().any(
                |segment| matches!(segment.arguments, PathArguments::Parenthesized(_))
            ))
        });
        visit::visit_type_impl_trait(self, opaque);
    }
}

/// Refuses types of which no trait can tell how they say 'busy'.
pub(crate) fn check_refusal(sig: &Signature, mistakes: &mut Mistakes) {
    let ReturnType::Type(_, ty) = &sig.output else {
        return;
    };
    // A future without `async` has its own message.
    if sig.asyncness.is_none() && future_output(ty).is_some() {
        return;
    }
    if is_never(ty) || matches!(peeled(ty), Type::ImplTrait(_)) {
        mistakes.at(
            ty,
            format_args!(
                "`{}` can't tell the caller that the lock is busy; write `on_busy = EXPR` with \
                 the value to return then, or return a `Result` whose error is \
                 `From<applock::Error>`, or return `()` or an `Option`",
                written(ty)
            ),
        );
    }
}

/// Refuses a function that is over before its work begins.
pub(crate) fn check_sync(sig: &Signature, mistakes: &mut Mistakes) {
    let ReturnType::Type(_, ty) = &sig.output else {
        return;
    };
    if let Some(output) = future_output(ty) {
        let output = output.map_or_else(String::new, |ty| match ty {
            Type::Tuple(tuple) if tuple.elems.is_empty() => String::new(),
            ty => format!(" -> {}", written(ty)),
        });
        mistakes.at(
            ty,
            format_args!(
                "this function returns a future, and would have released the lock before the \
                 future runs; write `async fn {}(…){output}`, or annotate an `async fn` and call \
                 it from here",
                sig.ident
            ),
        );
    }
}

/// The type as a person writes it; tokens print with a space around each.
fn written(ty: &Type) -> String {
    let mut text = ty.to_token_stream().to_string();
    for (spaced, tight) in [
        (" :: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        ("& ", "&"),
        ("' ", "'"),
    ] {
        text = text.replace(spaced, tight);
    }
    text
}

/// Whether the type is a future, and what comes out of it, as far as it is written.
fn future_output(ty: &Type) -> Option<Option<&Type>> {
    match peeled(ty) {
        Type::ImplTrait(opaque) => future_bound(opaque.bounds.iter()),
        Type::Path(path) => match last(path)?.0.as_str() {
            "BoxFuture" | "LocalBoxFuture" => Some(types(last(path)?.1).last()),
            _ => boxed_future(path),
        },
        _ => None,
    }
}

/// `Pin<Box<dyn Future<Output = T>>>`, and the same with fewer wrappers.
pub(crate) fn boxed_future(path: &TypePath) -> Option<Option<&Type>> {
    let (name, arguments) = last(path)?;
    if name != "Pin" && name != "Box" {
        return None;
    }
    match peeled(types(arguments).next()?) {
        Type::Path(inner) => boxed_future(inner),
        Type::TraitObject(object) => future_bound(object.bounds.iter()),
        _ => None,
    }
}

fn last(path: &TypePath) -> Option<(String, &PathArguments)> {
    let segment = path.path.segments.last()?;
    Some((segment.ident.to_string(), &segment.arguments))
}

fn types(arguments: &PathArguments) -> impl Iterator<Item = &Type> {
    let arguments = match arguments {
        PathArguments::AngleBracketed(arguments) => Some(arguments.args.iter()),
        _ => None,
    };
    arguments
        .into_iter()
        .flatten()
        .filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })
}

fn future_bound<'a>(
    mut bounds: impl Iterator<Item = &'a TypeParamBound>,
) -> Option<Option<&'a Type>> {
    bounds.find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else {
            return None;
        };
        let segment = bound.path.segments.last()?;
        if segment.ident != "Future" && segment.ident != "IntoFuture" {
            return None;
        }
        let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
            return Some(None);
        };
        Some(arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(output) if output.ident == "Output" => Some(&output.ty),
            _ => None,
        }))
    })
}
