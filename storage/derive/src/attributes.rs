//! The attribute `#[record(…)]`.

use syn::{
    Attribute, LitInt, LitStr, Path, Result, Token, parenthesized, parse_quote, punctuated::Punctuated,
};

/// What `#[record(…)]` says about a type.
pub(crate) struct RecordAttributes {
    /// Schema name, if it is not the type's own.
    pub name: Option<String>,
    /// Schema version.
    pub version: u32,
    /// Traits that the archived type derives besides `Debug`.
    pub derives: Vec<Path>,
    /// Path to Tidemill.
    pub krate: Path,
}

impl RecordAttributes {
    /// Reads all `#[record(…)]` among `attributes`.
    ///
    /// # Errors
    /// On an unknown key or a value of the wrong kind.
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut this = Self { name: None, version: 1, derives: Vec::new(), krate: default_crate() };
        for attribute in attributes.iter().filter(|a| a.path().is_ident("record")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    let name: LitStr = meta.value()?.parse()?;
                    if name.value().is_empty() {
                        return Err(syn::Error::new_spanned(name, "a record's name cannot be empty"));
                    }
                    this.name = Some(name.value());
                } else if meta.path.is_ident("version") {
                    this.version = meta.value()?.parse::<LitInt>()?.base10_parse()?;
                } else if meta.path.is_ident("derive") {
                    let paths;
                    parenthesized!(paths in meta.input);
                    this.derives.extend(Punctuated::<Path, Token![,]>::parse_terminated(&paths)?);
                } else if meta.path.is_ident("crate") {
                    this.krate = meta.value()?.parse()?;
                } else {
                    return Err(meta.error("expected `name`, `version`, `derive` or `crate`"));
                }
                Ok(())
            })?;
        }
        Ok(this)
    }
}

/// Where Tidemill is found unless an attribute says otherwise.
pub(crate) fn default_crate() -> Path {
    parse_quote!(::tidemill)
}
