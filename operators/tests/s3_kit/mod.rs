//! A server of S3 in this process, over real HTTP on the loopback: `s3s-fs`, which keeps objects as files in a directory.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tidemill_engine::platform::remote::RemoteConfig;
use tokio::{net::TcpListener, runtime::Runtime, task::AbortHandle};

const BUCKET: &str = "checkpoints";
const KEY: &str = "a-key";
const SECRET: &str = "a-secret";

/// The server, until it is dropped.
pub struct Server {
    directory: PathBuf,
    address: SocketAddr,
    /// The connections; nothing while it is off.
    connections: Arc<Mutex<Option<Vec<AbortHandle>>>>,
    _tasks: Runtime,
}

impl Server {
    /// Serves what is in `directory`, where the bucket is made.
    pub fn start(directory: &Path) -> Self {
        fs::create_dir_all(directory.join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let tasks =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = tasks.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Some(Vec::new())));
        let open = Arc::clone(&connections);
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                let mut open = open.lock().unwrap();
                let Some(open) = &mut *open else { continue };
                let serving = tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    // A connection that is cut is no failure of the server.
                    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
                });
                open.push(serving.abort_handle());
            }
        });
        Self { directory: directory.to_owned(), address, connections, _tasks: tasks }
    }

    /// Cuts all connections and takes no request, or does so again.
    pub fn switch(&self, on: bool) {
        let cut = std::mem::replace(&mut *self.connections.lock().unwrap(), on.then(Vec::new));
        cut.into_iter().flatten().for_each(|connection| connection.abort());
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The names of all objects under the prefix of a job, and their lengths in bytes.
    pub fn objects(&self) -> BTreeMap<String, u64> {
        fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let (root, mut found) = (self.directory.join(BUCKET).join("jobs/orders"), Vec::new());
        walk(&root, &mut found);
        let object = |path: &PathBuf| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
            (name.to_owned(), path.metadata().unwrap().len())
        };
        found.iter().map(object).collect()
    }
}

/// A job's place in a bucket behind `endpoint`.
pub fn remote(endpoint: &str) -> RemoteConfig {
    with(endpoint, BUCKET, SECRET)
}

/// As [`remote`], with another bucket and secret.
pub fn with(endpoint: &str, bucket: &str, secret: &str) -> RemoteConfig {
    let remote = RemoteConfig::new(format!("s3://{bucket}/jobs/orders"));
    remote.endpoint(endpoint).region("eu-central-1").credentials(KEY, secret)
}
