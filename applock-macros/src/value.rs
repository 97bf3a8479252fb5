//! What the value of each argument may be.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::{Expr, ExprLit, ExprPath, Ident, Lit, LitStr, Path, PathArguments};

use crate::capture::Template;
use crate::duration::{self, Length};
use crate::mistakes::Mistakes;
use crate::suggest::nearest;

/// The longest application, name or key, in bytes; the stores refuse more.
const LONGEST_NAME: usize = 65_535;

/// `app`, which is the same for every call.
pub(crate) enum App {
    Literal(LitStr),
    /// A constant expression of type `&str`.
    Constant(Expr),
}

impl App {
    /// An expression of type `&str`. The compiler refuses one that varies from call to call.
    pub(crate) fn tokens(&self) -> TokenStream {
        match self {
            Self::Literal(text) => quote!(#text),
            Self::Constant(expr) => quote_spanned! {Span::mixed_site()=>
                const {
                    let app: &'static ::core::primitive::str = #expr;
                    app
                }
            },
        }
    }
}

pub(crate) enum Wait {
    For(Length),
    Forever,
}

/// What a caller gets when the lock is busy.
#[derive(Default)]
pub(crate) enum OnBusy {
    /// Not said: the return type decides.
    #[default]
    Unset,
    Error,
    Skip,
    Give(Expr),
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum OnLost {
    Cancel,
    Finish,
}

/// The expression inside parentheses and the invisible groups that `macro_rules!`
/// puts around what it substitutes.
pub(crate) fn bare(expr: Expr) -> Expr {
    match expr {
        Expr::Group(group) => bare(*group.expr),
        Expr::Paren(paren) if paren.attrs.is_empty() => match bare(*paren.expr) {
            // Parentheses make a word an expression: `on_busy = (skip)` is a variable.
            inner @ Expr::Path(_) => Expr::Paren(syn::ExprParen {
                expr: Box::new(inner),
                ..paren
            }),
            inner => inner,
        },
        other => other,
    }
}

/// `expr` without the parentheses that only kept a word from being read as ours.
fn unparenthesized(expr: Expr) -> Expr {
    match expr {
        Expr::Paren(paren) => *paren.expr,
        other => other,
    }
}

/// A single word such as `skip`.
fn word(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Path(ExprPath {
            attrs,
            qself: None,
            path,
        }) if attrs.is_empty() => path.get_ident(),
        _ => None,
    }
}

fn text(argument: &str, expr: &Expr, mistakes: &mut Mistakes) -> Option<LitStr> {
    let Expr::Lit(ExprLit {
        lit: Lit::Str(text),
        ..
    }) = expr
    else {
        mistakes.at(
            expr,
            match argument {
                "app" => "`app` must be text: write `app = \"reports\"`, or a constant of type \
                          `&str`; what varies from call to call goes into `name`"
                    .to_owned(),
                _ => format!(
                    "`{argument}` must be a string literal; what varies from call to call is \
                     captured from the function's arguments: `{argument} = \"tenant-{{tenant}}\"`"
                ),
            },
        );
        return None;
    };
    if !text.suffix().is_empty() {
        mistakes.at(
            text,
            format_args!("`{argument}` has a suffix; take `{}` off", text.suffix()),
        );
        return None;
    }
    let length = text.value().len();
    if length == 0 {
        let remedy = match argument {
            "app" => "write the application's name, as in `app = \"reports\"`",
            "key" => "write the whole key, or use `app` instead",
            _ => "write a name, or leave `name` out",
        };
        mistakes.at(text, format_args!("`{argument}` is empty; {remedy}"));
        return None;
    }
    if length > LONGEST_NAME {
        mistakes.at(
            text,
            format_args!("`{argument}` has {length} bytes, and {LONGEST_NAME} is the most"),
        );
        return None;
    }
    Some(text.clone())
}

/// `app = "billing"`, `app = APP`, `app = env!("SERVICE")`
pub(crate) fn app(expr: Expr, mistakes: &mut Mistakes) -> Option<App> {
    if !matches!(expr, Expr::Lit(_)) {
        return Some(App::Constant(unparenthesized(expr)));
    }
    let text = text("app", &expr, mistakes)?;
    if text.value().contains(['{', '}']) {
        mistakes.at(
            &text,
            "`app` is the same for every call, so it captures nothing; put what varies into \
             `name`: `app = \"billing\", name = \"tenant-{tenant}\"`",
        );
        return None;
    }
    Some(App::Literal(text))
}

/// `reentrant`, with a value that it does not take.
pub(crate) fn reentrant(value: Expr, mistakes: &mut Mistakes) {
    mistakes.at(
        value,
        "`reentrant` has no value: write the word alone, or leave it out",
    );
}

/// `name = "tenant-{tenant}"`, `key = "…"`
pub(crate) fn template(argument: &str, expr: Expr, mistakes: &mut Mistakes) -> Option<Template> {
    let text = text(argument, &expr, mistakes)?;
    Template::read(argument, text, mistakes)
}

/// A length of time of at least what a lease lasts: `ttl`, `at_most`, `remember`.
pub(crate) fn lease(argument: &str, expr: Expr, mistakes: &mut Mistakes) -> Option<Length> {
    duration::read(argument, expr, mistakes)
        .filter(|length| length.must_hold_a_lease(argument, mistakes))
}

/// `at_least = "30s"`; nothing at all is as good as leaving it out.
pub(crate) fn at_least(expr: Expr, mistakes: &mut Mistakes) -> Option<Length> {
    duration::read("at_least", expr, mistakes)
        .filter(|length| length.is_nothing() || length.must_hold_a_lease("at_least", mistakes))
}

/// `every = "1h"`
pub(crate) fn every(expr: Expr, mistakes: &mut Mistakes) -> Option<Length> {
    lease("every", expr, mistakes).filter(|length| length.must_be_an_every(mistakes))
}

/// `tick = fired_at`: a `u64` or a `SystemTime`.
pub(crate) fn tick(expr: Expr, mistakes: &mut Mistakes) -> Option<Expr> {
    if matches!(expr, Expr::Lit(_)) {
        mistakes.at(
            &expr,
            "`tick` is the run's own number or time, another one at each call: write an \
             expression of type `u64` or `SystemTime`, such as an argument (`tick = fired_at`); how \
             often the job is to run is `every = \"1h\"`",
        );
        return None;
    }
    Some(unparenthesized(expr))
}

/// `retry = failed`
pub(crate) fn retry(expr: &Expr, mistakes: &mut Mistakes) -> bool {
    if word(expr).is_some_and(|word| word == "failed") {
        return true;
    }
    mistakes.at(
        expr,
        "`retry` is `failed` (a run that failed does not count, so that another may take its \
         tick up): write `retry = failed`, or leave it out",
    );
    false
}

/// `wait = "10s"`, `wait = forever`
pub(crate) fn wait(expr: Expr, mistakes: &mut Mistakes) -> Option<Wait> {
    if let Some(word) = word(&expr) {
        if word == "forever" {
            return Some(Wait::Forever);
        }
        if nearest(&word.to_string(), ["forever"]).is_some() {
            mistakes.at(word, "did you mean `wait = forever`?");
            return None;
        }
    }
    duration::read("wait", expr, mistakes).map(Wait::For)
}

/// `on_busy = error`, `skip`, or an expression
pub(crate) fn on_busy(expr: Expr, mistakes: &mut Mistakes) -> OnBusy {
    if let Some(word) = word(&expr) {
        if word == "error" {
            return OnBusy::Error;
        }
        if word == "skip" {
            return OnBusy::Skip;
        }
        if let Some(near) = nearest(&word.to_string(), ["error", "skip"]) {
            mistakes.at(
                word,
                format_args!(
                    "did you mean `on_busy = {near}`? (a variable of this name stands in \
                     parentheses: `on_busy = ({word})`)"
                ),
            );
            return OnBusy::Unset;
        }
    }
    OnBusy::Give(unparenthesized(expr))
}

/// `on_lost = cancel`, `finish`
pub(crate) fn on_lost(expr: Expr, mistakes: &mut Mistakes) -> Option<(OnLost, Ident)> {
    let given = match &expr {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text.value()),
        other => word(other).map(Ident::to_string),
    };
    match (word(&expr), given.as_deref()) {
        (Some(word), Some("cancel")) => return Some((OnLost::Cancel, word.clone())),
        (Some(word), Some("finish")) => return Some((OnLost::Finish, word.clone())),
        (None, Some(quoted @ ("cancel" | "finish"))) => mistakes.at(
            &expr,
            format_args!("`on_lost` takes a plain word: write `on_lost = {quoted}`"),
        ),
        (_, given) => {
            let remedy = match given.and_then(|given| nearest(given, ["cancel", "finish"])) {
                Some(near) => format!("did you mean `on_lost = {near}`?"),
                None => "write `on_lost = cancel` (stop the body) or `on_lost = finish` (let it \
                         run to its end)"
                    .to_owned(),
            };
            mistakes.at(
                &expr,
                format_args!("`on_lost` is `cancel` or `finish`; {remedy}"),
            );
        }
    }
    None
}

/// `locker = expr`
pub(crate) fn locker(expr: Expr, mistakes: &mut Mistakes) -> Option<Expr> {
    if matches!(expr, Expr::Lit(_)) {
        mistakes.at(
            &expr,
            "`locker` is an expression of type `AppLocker`, such as a static or a field: \
             `locker = self.locker`; a URL belongs into `APPLOCK_URL` or `AppLocker::connect`",
        );
        return None;
    }
    Some(unparenthesized(expr))
}

/// `guard = ident`
pub(crate) fn guard(expr: Expr, mistakes: &mut Mistakes) -> Option<Ident> {
    match word(&expr) {
        Some(word)
            if word.unraw() != "self" && word != "Self" && word != "super" && word != "crate" =>
        {
            Some(word.clone())
        }
        _ => {
            mistakes.at(
                &expr,
                "`guard` is the name by which the body can use its `LockGuard`: write \
                 `guard = guard`",
            );
            None
        }
    }
}

/// `crate = path`
pub(crate) fn path(input: ParseStream, mistakes: &mut Mistakes) -> syn::Result<Option<Path>> {
    const WRITE: &str = "write the path to applock, as in `crate = my_crate::applock`";
    if let Ok(literal) = input.fork().parse::<Lit>() {
        let _: Lit = input.parse()?;
        match &literal {
            Lit::Str(text) if text.parse::<Path>().is_ok() => mistakes.at(
                &literal,
                format_args!(
                    "`crate` takes a path without quotes: write `crate = {}`",
                    text.value()
                ),
            ),
            _ => mistakes.at(&literal, format_args!("`crate` must be a path; {WRITE}")),
        }
        return Ok(None);
    }
    // An invisible group (from `macro_rules!`) is opened by the type's parser.
    let path = match input.parse::<syn::Type>()? {
        syn::Type::Path(path) if path.qself.is_none() => path.path,
        syn::Type::Group(group) => match *group.elem {
            syn::Type::Path(path) if path.qself.is_none() => path.path,
            other => {
                mistakes.at(other, format_args!("`crate` must be a path; {WRITE}"));
                return Ok(None);
            }
        },
        other => {
            mistakes.at(other, format_args!("`crate` must be a path; {WRITE}"));
            return Ok(None);
        }
    };
    if path
        .segments
        .iter()
        .any(|segment| !matches!(segment.arguments, PathArguments::None))
    {
        mistakes.at(
            &path,
            format_args!("`crate` must be a path without generics; {WRITE}"),
        );
        return Ok(None);
    }
    Ok(Some(path))
}
