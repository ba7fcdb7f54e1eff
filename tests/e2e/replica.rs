//! A second server with an Envoy of its own on the database of a stack, as another machine of the same deployment would be.

use std::net::SocketAddr;
use std::path::PathBuf;

use keyward_tests::envoy::{Endpoint, Envoy};
use keyward_tests::files;
use keyward_tests::server::Server;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

/// The second one; it ends when this is dropped.
pub(crate) struct Replica {
    pub(crate) agents: SocketAddr,
    pub(crate) server: Server,
    _envoy: Envoy,
}

// === impl Replica ===

impl Replica {
    /// Starts it with the configuration of this stack: only the ports, the audit file and the connect pages are not shared.
    pub(crate) async fn start(stack: &Stack) -> Replica {
        let folder = stack.folder.join("replica");
        std::fs::create_dir_all(&folder).unwrap();
        let mut config = stack.config().clone();
        let absolute = |path: &Value| -> PathBuf { stack.folder.join(path.as_str().unwrap()) };
        config["policy"]["directory"] = json!(absolute(&config["policy"]["directory"]));
        let keys = &mut config["identity"]["issuers"][0]["jwks"];
        if let Some(file) = keys.get("file") {
            *keys = json!({"file": absolute(file)});
        }
        if let Some(database) = config.get_mut("database") {
            database["url"] = json!(format!("sqlite://{}", stack.folder.join("keyward.db").display()));
        }
        if let Some(listen) = config["listen"].as_object_mut() {
            listen.entry("connect").and_modify(|connect| *connect = json!("127.0.0.1:0"));
        }
        files::copy_folder(&stack.folder.join("secrets"), &folder.join("secrets")).unwrap();
        let file = folder.join("keyward.yaml");
        std::fs::write(&file, serde_saphyr::to_string(&config).unwrap()).unwrap();
        let server = Server::start(&file, stack.variables(), &folder).unwrap();
        let mut options = stack.envoy.options().clone();
        options.keyward = Endpoint::Tcp(server.grpc);
        let envoy = Envoy::start(options, &folder).await.unwrap();
        Replica { agents: envoy.agents().unwrap(), server, _envoy: envoy }
    }
}
