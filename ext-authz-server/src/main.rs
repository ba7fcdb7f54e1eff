//! `keyward`: the server and its tools.

fn main() -> std::process::ExitCode {
    keyward_server::cli::run()
}
