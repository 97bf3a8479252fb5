::core::compile_error! {
    "`app` is missing: write `#[singleton(app = \"reports\")]`; every function with the same `app` shares one lock"
}
::core::compile_error! {
    "#[singleton] goes on a function with a body, and this is a struct"
}
struct Broken {
    field: u32,
}
::core::compile_error! {
    "a `const fn` can run while compiling, where there is no lock to take; take `const` off, or annotate its caller"
}
const fn constant() {}
