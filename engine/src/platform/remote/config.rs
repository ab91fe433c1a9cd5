//! Which remote store, and how to speak with it.

use std::{fmt, path::PathBuf};

use super::RemoteError;

/// Which remote store keeps a job's checkpoints, and how to speak with it.
///
/// * `s3://BUCKET/PREFIX`: S3, or a server that speaks its protocol. Needs the feature `object-store`. What is not set here comes
///   from the environment, as AWS's own tools have it: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`,
///   `AWS_REGION`, `AWS_ENDPOINT_URL`; without keys the roles of containers and machines are asked.
/// * `file:///DIRECTORY`: a directory that outlives the machine, such as one of a network filesystem. It has to be there.
///
/// ```
/// use tidemill_engine::platform::remote::RemoteConfig;
///
/// let from_environment = RemoteConfig::new("s3://checkpoints/orders");
/// let own_server = RemoteConfig::new("s3://checkpoints/orders")
///     .endpoint("http://10.0.0.7:9000")
///     .credentials("key", "secret");
/// assert!(!format!("{own_server:?}").contains("secret\""), "secrets are not shown");
/// # drop(from_environment);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    url: String,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) credentials: Option<(String, String)>,
}

/// What a URL names.
pub(super) enum Target {
    /// A directory.
    Directory(PathBuf),
    /// A prefix of the names in a bucket.
    S3 {
        #[cfg_attr(not(feature = "object-store"), expect(dead_code, reason = "read by the client of S3"))]
        bucket: String,
        #[cfg_attr(not(feature = "object-store"), expect(dead_code, reason = "read by the client of S3"))]
        prefix: String,
    },
}

impl fmt::Debug for RemoteConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RemoteConfig")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("credentials", &self.credentials.as_ref().map(|_| "…"))
            .finish()
    }
}

impl RemoteConfig {
    /// The store that `url` names.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), endpoint: None, region: None, credentials: None }
    }

    /// Speaks with this server instead of AWS. `http://` is spoken in the clear.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// The region of the bucket.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The access key and its secret, instead of those of the environment.
    pub fn credentials(mut self, access_key: impl Into<String>, secret: impl Into<String>) -> Self {
        self.credentials = Some((access_key.into(), secret.into()));
        self
    }

    /// The same store as `own` where that is reached, at this URL; unless this says itself how to reach it.
    pub(crate) fn reached_as(mut self, own: &Self) -> Self {
        if self.endpoint.is_none() && self.region.is_none() && self.credentials.is_none() {
            let Self { endpoint, region, credentials, .. } = own.clone();
            (self.endpoint, self.region, self.credentials) = (endpoint, region, credentials);
        }
        self
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Checks the URL.
    ///
    /// # Errors
    /// When it names no store.
    pub fn check(&self) -> Result<(), RemoteError> {
        self.target().map(drop)
    }

    pub(super) fn target(&self) -> Result<Target, RemoteError> {
        let wrong = |why: &str| RemoteError::Refused {
            why: format!("`{}` names no remote store: {why}", self.url),
            fix: "Write s3://BUCKET/PREFIX, or file:///DIRECTORY".to_owned(),
        };
        let plain =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if let Some(path) = self.url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(wrong("the path behind `file://` is not absolute"));
            }
            return Ok(Target::Directory(path.into()));
        }
        let Some(rest) = self.url.strip_prefix("s3://") else {
            return Err(wrong("it begins with neither `s3://` nor `file:///`"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() || !plain(bucket) {
            return Err(wrong("a bucket's name has letters, digits, `-`, `.` and `_` only"));
        }
        let parts = || prefix.split('/').filter(|_| !prefix.is_empty());
        if parts().any(|part| part.is_empty() || part == "." || part == ".." || !plain(part)) {
            return Err(wrong("its prefix may have letters, digits, `-`, `.`, `_` and single `/` only"));
        }
        Ok(Target::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_name_no_store_are_refused_with_the_reason() {
        for good in ["s3://bucket", "s3://bucket/", "s3://my.bucket/a/b-c_d", "file:///mnt/checkpoints"] {
            RemoteConfig::new(good).check().unwrap();
        }
        for bad in [
            "",
            "bucket/prefix",
            "s3://",
            "s3:///prefix",
            "s3://b/a//c",
            "s3://b/../c",
            "s3://b/ä",
            "file://x",
        ] {
            let error = RemoteConfig::new(bad).check().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")) && error.contains("s3://BUCKET/PREFIX"), "{error}");
        }
    }

    #[test]
    fn another_place_of_the_same_server_is_reached_alike_unless_told_otherwise() {
        let own = RemoteConfig::new("s3://bucket/own").endpoint("http://here").credentials("name", "word");
        let other = RemoteConfig::new("s3://bucket/other").reached_as(&own);
        assert_eq!(other, RemoteConfig { url: "s3://bucket/other".to_owned(), ..own.clone() });
        let elsewhere = RemoteConfig::new("s3://bucket/other").region("there");
        assert_eq!(elsewhere.clone().reached_as(&own), elsewhere);
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = RemoteConfig::new("s3://bucket").credentials("name", "hidden");
        assert!(!format!("{config:?}").contains("hidden"));
    }
}
