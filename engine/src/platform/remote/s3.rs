//! S3, and what speaks its protocol, through the crate `object_store`.
//!
//! Its requests are asynchronous, on a thread of their own; whoever calls waits for them. Each has one try and a bounded time:
//! who calls knows better whether to repeat it.

use std::{fmt, sync::OnceLock, time::Duration};

use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    path::Path,
};
use tokio::runtime::{Builder, Runtime};

use super::{RemoteConfig, RemoteError, RemoteStore};

/// A request that takes longer is given up. Two blocks of 8 MiB at once need 0.6 MB/s then.
const REQUEST_S_MAX: u64 = 30;
const CONNECT_S_MAX: u64 = 5;
/// Pages of a list, and deletions, are bounded by the protocol; more than so many objects are no store of ours.
const LISTED_MAX: usize = 10_000_000;

/// A bucket, or a part of it.
pub(super) struct S3Store {
    client: AmazonS3,
    /// There until it is dropped.
    tasks: Option<Runtime>,
    place: String,
    prefix: String,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("S3Store").field("place", &self.place).finish_non_exhaustive()
    }
}

impl S3Store {
    pub(super) fn open(config: &RemoteConfig, bucket: &str, prefix: &str) -> Result<Self, RemoteError> {
        static CRYPTOGRAPHY: OnceLock<()> = OnceLock::new();
        // If the program has chosen another one, that is used.
        CRYPTOGRAPHY.get_or_init(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let options = ClientOptions::new()
            .with_timeout(Duration::from_secs(REQUEST_S_MAX))
            .with_connect_timeout(Duration::from_secs(CONNECT_S_MAX));
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        // Whoever names a server so wants it to be spoken with so.
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            builder = builder.with_allow_http(true);
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if let Some((key, secret)) = &config.credentials {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret);
        }
        let refused = |why: String| RemoteError::Refused {
            why: format!("cannot use {}: {why}", config.url()),
            fix: "Mend the settings of the remote store, or the variables AWS_… of the environment"
                .to_owned(),
        };
        let client = builder.build().map_err(|error| refused(error.to_string()))?;
        let tasks =
            Builder::new_multi_thread().worker_threads(1).thread_name("tidemill-s3").enable_all().build();
        let tasks = tasks.map_err(|error| refused(format!("no thread for its requests: {error}")))?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { client, tasks: Some(tasks), place: config.url().to_owned(), prefix })
    }

    fn path(&self, key: &str) -> Path {
        Path::from(format!("{}{key}", self.prefix))
    }

    fn wait<T>(
        &self,
        doing: &str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, RemoteError> {
        let Some(tasks) = &self.tasks else {
            return Err(RemoteError::Failed { why: "it is closed".to_owned() });
        };
        tasks.block_on(request).map_err(|error| self.explain(doing, &error))
    }

    /// Says what an error means, and whether another try may go well.
    fn explain(&self, doing: &str, error: &Error) -> RemoteError {
        let key = |path: &str| path.strip_prefix(&self.prefix).unwrap_or(path).to_owned();
        let said = causes(error);
        // Lists bring such errors without their kind.
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let refused = |fix: &str| RemoteError::Refused {
            why: format!("{} refuses to {doing}: {said}", self.place),
            fix: fix.to_owned(),
        };
        if has(&["NoSuchBucket"]) {
            return refused("Make the bucket, or mend its name; Tidemill makes none");
        }
        if has(&[
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "InvalidToken",
            "401 Unauthorized",
        ]) {
            return refused(
                "Check the access key and its secret (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), and the clock",
            );
        }
        match error {
            Error::NotFound { path, .. } => RemoteError::Absent { key: key(path) },
            Error::AlreadyExists { path, .. } | Error::Precondition { path, .. } => {
                RemoteError::Taken { key: key(path) }
            }
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => refused(
                "Allow this access key to list the bucket, and to get, put and delete objects under the prefix",
            ),
            _ if has(&["403 Forbidden", "AccessDenied"]) => refused(
                "Allow this access key to list the bucket, and to get, put and delete objects under the prefix",
            ),
            Error::NotSupported { .. } | Error::NotImplemented { .. } => {
                refused("Use a store that knows conditional puts (If-None-Match)")
            }
            _ if has(&["501 Not Implemented"]) => {
                refused("Use a store that knows conditional puts (If-None-Match)")
            }
            _ => RemoteError::Failed { why: format!("{} did not {doing}: {said}", self.place) },
        }
    }
}

/// What an error and those behind it say, each once.
fn causes(error: &Error) -> String {
    let mut said = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        next = cause.source();
    }
    said
}

impl RemoteStore for S3Store {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn put(&self, objects: &[(String, Vec<u8>)]) -> Result<(), RemoteError> {
        let puts = objects.iter().map(|(key, bytes)| async {
            self.client.put(&self.path(key), PutPayload::from(bytes.clone())).await
        });
        self.wait("put objects", try_join_all(puts)).map(drop)
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<(), RemoteError> {
        let (path, payload) = (self.path(key), PutPayload::from(bytes.to_vec()));
        let put = self.client.put_opts(&path, payload, PutOptions::from(PutMode::Create));
        self.wait("put an object", put).map(drop)
    }

    fn get(&self, keys: &[String], bytes_max: u64) -> Result<Vec<Vec<u8>>, RemoteError> {
        let gets = keys.iter().map(|key| async move {
            let found = self.client.get(&self.path(key)).await?;
            let bytes = found.meta.size;
            if bytes > bytes_max {
                return Ok(Err(RemoteError::TooLong { key: key.clone(), bytes, bytes_max }));
            }
            found.bytes().await.map(|bytes| Ok(bytes.to_vec()))
        });
        self.wait("read objects", try_join_all(gets))?.into_iter().collect()
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, RemoteError> {
        let path = Path::from(format!("{}{}", self.prefix, prefix.trim_end_matches('/')));
        let listed = self.client.list(Some(&path)).take(LISTED_MAX).try_collect::<Vec<_>>();
        let listed = self.wait("list objects", listed)?;
        let key = |path: &Path| path.as_ref().strip_prefix(&self.prefix).map(str::to_owned);
        let mut keys: Vec<String> = listed.iter().filter_map(|object| key(&object.location)).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    fn delete(&self, keys: &[String]) -> Result<(), RemoteError> {
        let paths: Vec<_> = keys.iter().map(|key| Ok(self.path(key))).collect();
        let deleted = self.client.delete_stream(stream::iter(paths).boxed()).collect::<Vec<_>>();
        let deleted = self.wait("delete objects", async { Ok(deleted.await) })?;
        for one in deleted {
            match one {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(self.explain("delete objects", &error)),
            }
        }
        Ok(())
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // Not waited for: whoever drops it may be no thread that can wait.
        if let Some(tasks) = self.tasks.take() {
            tasks.shutdown_background();
        }
    }
}
