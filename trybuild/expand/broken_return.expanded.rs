impl Broken {
    ::core::compile_error! {
        "this function returns a future, and would have released the lock before the future runs; write `async fn future(…) -> u32`, or annotate an `async fn` and call it from here"
    }
    fn future(&self) -> impl Future<Output = u32> {
        async { 1 }
    }
    ::core::compile_error! {
        "a function that is not async can't be cancelled: write `on_lost = finish` and ask the guard (`guard = guard`, `guard.ensure_held()?`), or make it an `async fn` (an attribute that makes it sync, such as #[tokio::main], belongs below this one)"
    }
    ::core::compile_error! {
        "`impl Iterator<Item = u32>` can't tell the caller that the lock is busy; write `on_busy = EXPR` with the value to return then, or return a `Result` whose error is `From<applock::Error>`, or return `()` or an `Option`"
    }
    fn iterator(&self) -> impl Iterator<Item = u32> {
        0..1
    }
}
