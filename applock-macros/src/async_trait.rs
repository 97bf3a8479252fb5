//! Functions that `#[async_trait]` has rewritten. It stands above the impl or trait,
//! so it expands first, and what we get is no `async fn` any more but
//!
//! ```text
//! fn f<'async_trait>(…) -> Pin<Box<dyn Future<Output = R> + Send + 'async_trait>> {
//!     Box::pin(async move { … })
//! }
//! ```
//!
//! The lock then goes around what is inside the async block, where async_trait has
//! already moved every argument.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::{ReturnType, Signature, Type};

use crate::output;

/// The body of such a function, taken apart.
pub(crate) struct Boxed {
    /// What comes out of the future.
    pub(crate) output: Type,
    /// `Box::pin`
    pub(crate) call: TokenStream,
    /// `async move`
    pub(crate) keywords: TokenStream,
    /// The block.
    pub(crate) block: Group,
}

impl Boxed {
    /// Recognizes the shape. A person who writes it by hand has no `'async_trait`
    /// lifetime, and the error says to write `async fn`.
    pub(crate) fn find(sig: &Signature, body: &Group) -> Option<Self> {
        if sig.asyncness.is_some()
            || !sig
                .generics
                .lifetimes()
                .any(|param| param.lifetime.ident == "async_trait")
        {
            return None;
        }
        let ReturnType::Type(_, ty) = &sig.output else {
            return None;
        };
        let Type::Path(path) = &**ty else {
            return None;
        };
        let output = output::boxed_future(path)??.clone();

        let mut tokens: Vec<TokenTree> = body.stream().into_iter().collect();
        let arguments = match tokens.pop()? {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => group,
            _ => return None,
        };
        let call: TokenStream = tokens.into_iter().collect();
        if call.to_string().replace(' ', "") != "Box::pin" {
            return None;
        }
        let mut inside: Vec<TokenTree> = arguments.stream().into_iter().collect();
        let block = match inside.pop()? {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => group,
            _ => return None,
        };
        let words: Vec<String> = inside.iter().map(ToString::to_string).collect();
        if words != ["async", "move"] {
            return None;
        }
        Some(Self {
            output,
            call,
            keywords: inside.into_iter().collect(),
            block,
        })
    }
}
