//! An API server alone, on a free port of the loopback with a store in a temporary directory: prints the path of a
//! kubeconfig and serves until it is interrupted. For trying clients by hand and for load.

#[path = "../tests/it/common/mod.rs"]
mod common;

#[tokio::main]
#[allow(clippy::unwrap_used)]
async fn main() {
    let server = common::TestServer::start().await;
    #[allow(clippy::print_stdout)]
    {
        println!("{}", server.kubeconfig().display());
    }
    tokio::signal::ctrl_c().await.unwrap();
}
