//! The function that comes out: the same signature, and around the body one call
//! into the runtime.
//!
//! Our own names are at `mixed_site`, so that the body can't see them; the body and
//! the names that it binds keep the user's spans, so that errors and lints land where
//! they would without the attribute.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;

use crate::args::Args;
use crate::capture::Template;
use crate::item::{self, Function};
use crate::output::Output;
use crate::value::{OnBusy, OnLost, Wait};

/// The function under its lock.
pub(crate) fn function(args: &Args, function: &Function) -> TokenStream {
    let krate = match &args.krate {
        Some(path) => quote!(#path),
        None => quote_spanned!(Span::mixed_site()=> ::applock),
    };
    let expansion = Expansion {
        args,
        function,
        krate,
    };
    if let Some(boxed) = &function.async_trait {
        let block = expansion.async_body(&Output::new(&boxed.output), {
            let output = Output::new(&boxed.output);
            let edge = output.is_whole().then(|| expansion.return_edge(&output));
            let (guard, block) = (expansion.guard(), &boxed.block);
            quote!(#edge #guard #block)
        });
        let (call, keywords) = (&boxed.call, &boxed.keywords);
        return expansion.around(&function.sig, &quote!(#call(#keywords { #block })));
    }
    let unnamed = item::unnamed(&function.sig);
    let sig = item::outer_signature(function, &unnamed);
    let output = Output::of(&function.sig);
    let body = if function.sig.asyncness.is_some() {
        let edge = expansion.return_edge(&output);
        let rebound = expansion.rebound(&unnamed);
        let guard = expansion.guard();
        let body = expansion.body(&output, None);
        expansion.async_body(&output, quote!(#edge #rebound #guard #body))
    } else {
        expansion.sync_body(&output, &unnamed)
    };
    expansion.around(&sig, &body)
}

struct Expansion<'a> {
    args: &'a Args,
    function: &'a Function,
    krate: TokenStream,
}

impl Expansion<'_> {
    /// The function as it was written, around a new body.
    fn around(&self, sig: &syn::Signature, body: &TokenStream) -> TokenStream {
        let Function {
            attrs,
            vis,
            defaultness,
            inner_attrs,
            ..
        } = self.function;
        quote_spanned! {Span::mixed_site()=>
            #(#attrs)*
            #vis #defaultness #sig {
                #(#inner_attrs)*
                #body
            }
        }
    }

    /// The body is pinned first, and the runtime drives it through a `Pin<&mut _>`:
    /// handing it over by value would put it into the future twice.
    fn async_body(&self, output: &Output, body: TokenStream) -> TokenStream {
        let call = self.call();
        let (error, refused) = self.refused(output);
        quote_spanned! {Span::mixed_site()=>
            #call
            let body = async move { #body };
            let body = ::core::pin::pin!(::core::option::Option::Some(body));
            match call.run(body).await {
                ::core::result::Result::Ok(value) => value,
                ::core::result::Result::Err(#error) => #refused,
            }
        }
    }

    /// A variable beside the body and no closure around it, so that the body borrows, returns and is linted as
    /// it would be without the attribute.
    fn sync_body(&self, output: &Output, unnamed: &[Option<Ident>]) -> TokenStream {
        let call = self.call();
        let (error, refused) = self.refused(output);
        let rebound = self.rebound(unnamed);
        let guard = self.guard();
        let is_closure = self.function.owns_self()
            || self.args.retry_failed
            || self.function.may_leave_early() && output.may_be_result();
        // How the run has ended: a `return` and a `?` in the body would pass this by.
        let seen = quote_spanned! {Span::mixed_site()=>
            #[allow(unreachable_code)]
            _run.returned(&value);
        };
        let in_place = (!is_closure).then_some(&seen);
        let body = self.body(output, in_place);
        // Only to ask the type: what a `fn` returns is known without it.
        let edge = output.is_whole().then(|| self.return_edge(output));
        let body = quote!(#edge #rebound #guard #body);
        let enter = if output.is_whole() {
            let ty = output.annotation(&self.krate);
            quote_spanned!(output.span()=> enter::<#ty>)
        } else if output.is_opaque() || !output.has_value() {
            quote_spanned!(Span::mixed_site()=> enter::<()>)
        } else {
            // A type without a name, which may be a `Result`.
            quote_spanned!(Span::mixed_site()=> enter::<::core::result::Result<(), ()>>)
        };
        if output.promises_closure() && !is_closure {
            // Only the function's very last expression is where the compiler still
            // knows what is expected of a closure.
            return quote_spanned! {Span::mixed_site()=>
                #call
                let _run = match call.#enter() {
                    ::core::result::Result::Ok(run) => run,
                    ::core::result::Result::Err(#error) => {
                        #[allow(unreachable_code, clippy::diverging_sub_expression)]
                        return #refused;
                    }
                };
                #body
            };
        }
        // R5: an owned `self` can't be rebound, so there a closure that takes it is
        // what drops it before the lock is released.
        //
        // And how the run has ended has to be seen also where it does by `return` or `?`.
        let body = if is_closure {
            let krate = &self.krate;
            let returns = if output.is_opaque() {
                quote!()
            } else {
                let ty = output.annotation(krate);
                quote_spanned!(output.span()=> -> #ty)
            };
            quote_spanned! {Span::mixed_site()=>
                #[allow(clippy::let_unit_value)]
                let value = #krate::__private::call_once(move || #returns { #body });
                #seen
                #[allow(unreachable_code)]
                value
            }
        } else {
            body
        };
        quote_spanned! {Span::mixed_site()=>
            #call
            match call.#enter() {
                ::core::result::Result::Ok(mut _run) => { #body }
                ::core::result::Result::Err(#error) => #refused,
            }
        }
    }

    /// `let call = …;`: the arguments that were given, and no others; the runtime
    /// knows the defaults.
    fn call(&self) -> TokenStream {
        let mixed = Span::mixed_site();
        let (args, krate) = (self.args, &self.krate);
        let function = self.function.sig.ident.unraw().to_string();
        let start = match (&args.app, &args.key) {
            (_, Some(key)) => {
                let key = template(key, krate);
                quote_spanned!(mixed=> whole_key(#key))
            }
            (Some(app), None) => {
                let app = app.tokens();
                quote_spanned!(mixed=> app(#app))
            }
            // Reported as a mistake; nothing is expanded then.
            (None, None) => quote_spanned!(mixed=> app("")),
        };
        let name = args.name.as_ref().map(|name| {
            let name = template(name, krate);
            quote_spanned!(mixed=> .name(#name))
        });
        let length = |method: &str, length: &Option<crate::duration::Length>| {
            length.as_ref().map(|length| {
                let (method, length) = (Ident::new(method, mixed), length.tokens());
                quote_spanned!(mixed=> .#method(#length))
            })
        };
        let ttl = length("ttl", &args.ttl);
        let wait = args.wait.as_ref().map(|wait| match wait {
            Wait::For(length) => {
                let length = length.tokens();
                quote_spanned!(mixed=> .wait(#length))
            }
            Wait::Forever => quote_spanned!(mixed=> .wait_forever()),
        });
        let every = length("every", &args.every);
        let tick = args
            .tick
            .as_ref()
            .map(|tick| quote_spanned!(mixed=> .tick(#tick)));
        let retry = args
            .retry_failed
            .then(|| quote_spanned!(mixed=> .retry_failed()));
        let at_least = length("at_least", &args.at_least);
        let at_most = length("at_most", &args.at_most);
        let remember = length("remember", &args.remember).or_else(|| {
            // Names made of arguments are many, and each costs the store memory. But a tick that
            // is forgotten would run again.
            let hour = 3_600_u64;
            (args.names_by_arguments() && args.tick.is_none()).then(
                || quote_spanned!(mixed=> .remember(::core::time::Duration::from_secs(#hour))),
            )
        });
        let reentrant = args.reentrant.then(|| quote_spanned!(mixed=> .reentrant()));
        let finish = matches!(args.on_lost, Some((OnLost::Finish, _)))
            .then(|| quote_spanned!(mixed=> .finish_when_lost()));
        // The `&` stands where the expression does, so that errors do too.
        let locker = args.locker.as_ref().map(|locker| {
            let reference = quote_spanned!(locker.span().resolved_at(mixed)=> &);
            quote_spanned!(mixed=> .locker(#reference #locker))
        });
        quote_spanned! {mixed=>
            let call = #krate::__private::Call::new(
                ::core::module_path!(),
                #function,
                #krate::__private::LockOptions::#start #name #ttl #wait #every #tick #retry #at_least #at_most #remember #reentrant,
            ) #finish #locker;
        }
    }

    /// R5: every argument moves into the body, so that it is dropped with it.
    fn rebound(&self, unnamed: &[Option<Ident>]) -> TokenStream {
        let mixed = Span::mixed_site();
        let bindings = self.function.bindings();
        let lets = bindings.iter().map(|binding| {
            let item::Binding {
                attrs,
                mutability,
                ident,
            } = binding;
            // Used by the attribute is used, though the body does without it.
            let used = self
                .is_used_by_args(ident)
                .then(|| quote_spanned!(mixed=> unused_variables,));
            quote_spanned! {mixed=>
                #(#attrs)*
                #[allow(
                    #used
                    clippy::let_unit_value,
                    clippy::no_effect_underscore_binding,
                    clippy::redundant_locals,
                    clippy::shadow_same,
                    clippy::used_underscore_binding
                )]
                let #mutability #ident = #ident;
            }
        });
        let unnamed =
            self.function
                .sig
                .inputs
                .iter()
                .zip(unnamed)
                .filter_map(|(argument, name)| {
                    let (syn::FnArg::Typed(argument), Some(name)) = (argument, name) else {
                        return None;
                    };
                    let attrs = &argument.attrs;
                    Some(quote_spanned! {mixed=>
                        #(#attrs)*
                        let _unnamed = #name;
                    })
                });
        // `self` can't be rebound; to name it is to move it into the async block or
        // closure, whole.
        let receiver = self
            .function
            .sig
            .receiver()
            .filter(|_| self.function.owns_self());
        let receiver = receiver.map(|receiver| {
            let this = &receiver.self_token;
            quote_spanned!(mixed=> let _ = &#this;)
        });
        quote!(#receiver #(#unnamed)* #(#lets)*)
    }

    fn is_used_by_args(&self, ident: &Ident) -> bool {
        let args = self.args;
        let name = ident.unraw().to_string();
        let captured = args
            .name
            .iter()
            .chain(&args.key)
            .any(|it| it.captures.contains(&name));
        let lengths = [
            &args.ttl,
            &args.every,
            &args.at_least,
            &args.at_most,
            &args.remember,
        ]
        .into_iter()
        .flatten();
        let wait = match &args.wait {
            Some(Wait::For(length)) => Some(length),
            _ => None,
        };
        captured
            || lengths
                .chain(wait)
                .any(|length| item::mentions(length.tokens(), ident))
            || [&args.tick, &args.locker]
                .into_iter()
                .flatten()
                .any(|expr| item::mentions(expr, ident))
            || matches!(&args.on_busy, OnBusy::Give(expr) if item::mentions(expr, ident))
    }

    /// `guard = ident`
    fn guard(&self) -> Option<TokenStream> {
        let krate = &self.krate;
        self.args.guard.as_ref().map(|guard| {
            quote_spanned!(Span::mixed_site()=> let #guard = #krate::__private::current_guard();)
        })
    }

    /// A return that never runs: it tells the compiler the async block's type before
    /// the body is looked at, so that a wrong type is an error in the body and not in
    /// generated code. And it asks whether the type's work outlasts the lock.
    fn return_edge(&self, output: &Output) -> TokenStream {
        if output.is_opaque() {
            return quote!();
        }
        let krate = &self.krate;
        let ty = output.annotation(krate);
        let never = if output.is_whole() {
            quote_spanned! {output.span()=>
                #krate::__private::finished::<#ty, _>(#krate::__private::Returned::<#ty>::NEW.kind())
            }
        } else {
            quote_spanned!(output.span()=> loop {})
        };
        quote_spanned! {output.span()=>
            #[allow(
                unreachable_code,
                clippy::diverging_sub_expression,
                clippy::empty_loop,
                clippy::let_unit_value,
                clippy::needless_return
            )]
            if false {
                let never: #ty = #never;
                return never;
            }
        }
    }

    /// The user's block. Its value is bound, so that the temporaries of its last
    /// expression are gone before the arguments are (in edition 2021 they would
    /// outlive them, and the lock). `seen`: what is done with it before.
    fn body(&self, output: &Output, seen: Option<&TokenStream>) -> TokenStream {
        let body = &self.function.body;
        if output.promises_closure() {
            // Bound to a name, a closure would lose the signature that it is to have.
            return quote_spanned! {Span::mixed_site()=>
                #[allow(unused_braces)]
                #body
            };
        }
        let annotation = (!output.is_opaque()).then(|| {
            let ty = output.annotation(&self.krate);
            quote_spanned!(output.span()=> : #ty)
        });
        quote_spanned! {Span::mixed_site()=>
            #[allow(clippy::diverging_sub_expression)]
            let value #annotation = #body;
            #seen
            #[allow(unreachable_code)]
            value
        }
    }

    /// The name that the arm for a lock not taken (or lost) gives to the error, and the
    /// value that the function then returns.
    fn refused(&self, output: &Output) -> (TokenStream, TokenStream) {
        let (span, mixed) = (output.span(), Span::mixed_site());
        let krate = &self.krate;
        let ty = output.annotation(krate);
        let error = quote_spanned!(mixed=> error);
        let otherwise = match &self.args.on_busy {
            OnBusy::Unset => {
                let refused = quote_spanned!(span=> <#ty as #krate::__private::Refusal>::refused);
                return (error.clone(), quote_spanned!(span=> #refused(#error)));
            }
            OnBusy::Error => {
                let refused = quote_spanned! {span=>
                    <#ty as #krate::__private::RefuseWithError>::refused_with_error
                };
                return (error.clone(), quote_spanned!(span=> #refused(#error)));
            }
            OnBusy::Skip => quote_spanned!(span=> <#ty as #krate::__private::Skip>::skipped()),
            // A type without a name can't be asked whether it carries errors.
            OnBusy::Give(expr) if output.is_opaque() => {
                return (quote_spanned!(mixed=> _), quote!(#expr));
            }
            // Bound with its type, so that a wrong type is an error at the expression.
            OnBusy::Give(expr) => quote_spanned! {span=> {
                #[allow(clippy::diverging_sub_expression)]
                let instead: #ty = #expr;
                #[allow(unreachable_code)]
                instead
            }},
        };
        let value = quote_spanned! {mixed=> {
            let carried = {
                #[allow(unused_imports)]
                use #krate::__private::{CarriesError as _, CarriesNothing as _};
                (&#krate::__private::AutorefDispatch::<#ty>::NEW).carry(#error)
            };
            match carried {
                ::core::option::Option::Some(value) => value,
                ::core::option::Option::None => #otherwise,
            }
        }};
        (error, value)
    }
}

fn template(template: &Template, krate: &TokenStream) -> TokenStream {
    let literal = &template.literal;
    if template.captures.is_empty() {
        let literal = syn::LitStr::new(&template.text, literal.span());
        return quote!(#literal);
    }
    let Some(joined) = &template.joined else {
        return quote_spanned!(Span::mixed_site()=> ::std::format!(#literal));
    };
    // At the literal's span, for that is where the captured names are looked up.
    let at_literal = |text: &String| syn::LitStr::new(text, literal.span());
    let (around, between) = (at_literal(&joined.around), &joined.between);
    let values = joined.values.iter().map(at_literal);
    quote_spanned! {Span::mixed_site()=>
        ::std::format!(
            #around,
            #(#krate::__private::escaped(::core::format_args!(#values), #between)),*
        )
    }
}
