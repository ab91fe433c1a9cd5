//! `#[derive(Record)]`: checks the type, then assembles the parts that structs and enums share.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, Ident, Path, Result, Type, Visibility, ext::IdentExt,
    spanned::Spanned,
};

use crate::{attributes::RecordAttributes, enums, structs};

/// Names that all generated parts use.
pub(crate) struct Names<'a> {
    /// The user's type.
    pub name: &'a Ident,
    /// Its visibility.
    pub vis: &'a Visibility,
    /// Its archived form.
    pub archived: Ident,
    /// Path to Tidemill's module for macros.
    pub private: TokenStream,
    /// Path to rkyv.
    pub rkyv: TokenStream,
}

/// What structs and enums have to provide.
pub(crate) struct Parts {
    /// Definition of the archived type, without attributes that both kinds share.
    pub archived_type: TokenStream,
    /// Further items that the implementations need.
    pub items: TokenStream,
    /// `Archive::Resolver`.
    pub resolver: TokenStream,
    /// Whether the bytes of the type are those of its archived form: a constant expression.
    pub copy: TokenStream,
    /// Body of `Archive::resolve`, with `self`, `resolver` and `out`.
    pub resolve: TokenStream,
    /// Body of `Serialize::serialize`, with `self` and `serializer`.
    pub serialize: TokenStream,
    /// Body of `Deserialize::deserialize`, with `self` and `deserializer`.
    pub deserialize: TokenStream,
}

/// Expands the derive.
///
/// # Errors
/// When the type cannot be a record.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let attributes = RecordAttributes::parse(&input.attrs)?;
    refuse_generics(input)?;
    let input = &without_self(input)?;
    let private = private(&attributes.krate);
    let names = Names {
        name: &input.ident,
        vis: &input.vis,
        archived: format_ident!("Archived{}", input.ident.unraw(), span = input.ident.span()),
        rkyv: quote!(#private::rkyv),
        private,
    };
    let (parts, types) = match &input.data {
        Data::Struct(data) => (structs::parts(&names, &data.fields), field_types([&data.fields])),
        Data::Enum(data) => {
            (enums::parts(&names, data)?, field_types(data.variants.iter().map(|v| &v.fields)))
        }
        Data::Union(_) => {
            return Err(Error::new_spanned(
                &input.ident,
                "a union cannot be a record: nothing says which field is valid; use an enum",
            ));
        }
    };
    Ok(assemble(&names, &attributes, &parts, &types))
}

/// Path to Tidemill's module for macros.
pub(crate) fn private(krate: &Path) -> TokenStream {
    quote!(#krate::__private)
}

/// The doc comments among `attributes`, or `otherwise` if there is none.
pub(crate) fn docs(attributes: &[Attribute], otherwise: &str) -> TokenStream {
    let mut docs = attributes.iter().filter(|a| a.path().is_ident("doc")).peekable();
    if docs.peek().is_some() { quote!(#(#docs)*) } else { quote!(#[doc = #otherwise]) }
}

/// Records are concrete, owning types.
fn refuse_generics(input: &DeriveInput) -> Result<()> {
    let Some(first) = input.generics.params.first() else { return Ok(()) };
    let message = if matches!(first, syn::GenericParam::Lifetime(_)) {
        "a record owns its data and cannot have lifetimes; to write a record from borrowed fields, derive \
         `Record` on an owning type and `WriteAs` on this one"
    } else {
        "a record cannot have type or const parameters: its layout and its name are stored; derive `Record` \
         on one concrete type for each use"
    };
    Err(Error::new_spanned(&input.generics, message))
}

/// The type with its own name for every `Self`, which would mean another type in the generated ones.
fn without_self(input: &DeriveInput) -> Result<DeriveInput> {
    fn rename(tokens: TokenStream, name: &Ident) -> TokenStream {
        let renamed = tokens.into_iter().map(|token| match token {
            TokenTree::Ident(ident) if ident == "Self" => TokenTree::Ident(name.clone()),
            TokenTree::Group(group) => {
                let mut renamed = Group::new(group.delimiter(), rename(group.stream(), name));
                renamed.set_span(group.span());
                TokenTree::Group(renamed)
            }
            other => other,
        });
        renamed.collect()
    }
    syn::parse2(rename(input.to_token_stream(), &input.ident))
}

/// A field type's archived form; errors about it point at the field.
pub(crate) fn archived_of(names: &Names<'_>, ty: &Type) -> TokenStream {
    let private = &names.private;
    quote_spanned!(ty.span()=> <#ty as #private::field::Field>::Archived)
}

/// A field type's resolver; errors about it point at the field.
pub(crate) fn resolver_of(names: &Names<'_>, ty: &Type) -> TokenStream {
    let private = &names.private;
    quote_spanned!(ty.span()=> <#ty as #private::field::Field>::Resolver)
}

/// A function of Tidemill's `field` module for a field of this type; errors about it point at the field.
pub(crate) fn function(names: &Names<'_>, name: &str, ty: &Type) -> TokenStream {
    let private = &names.private;
    let name = Ident::new(name, ty.span());
    quote_spanned!(ty.span()=> #private::field::#name::<#ty>)
}

/// The types of all fields.
fn field_types<'a>(fields: impl IntoIterator<Item = &'a Fields>) -> Vec<&'a Type> {
    fields.into_iter().flatten().map(|f| &f.ty).collect()
}

/// Puts the parts together.
fn assemble(
    names: &Names<'_>,
    attributes: &RecordAttributes,
    parts: &Parts,
    field_types: &[&Type],
) -> TokenStream {
    let Names { name, archived, private, rkyv, .. } = names;
    let Parts { archived_type, items, resolver, copy, resolve, serialize, deserialize } = parts;
    let derives = &attributes.derives;
    let schema_name = attributes.name.clone().unwrap_or_else(|| name.unraw().to_string());
    let schema_version = attributes.version;
    let doc = format!("[`{name}`] as it lies in a batch or in state, to be read in place.");
    // Each at its field, so that the compiler points there when a field is no record.
    let field_checks =
        field_types.iter().map(|ty| quote_spanned!(ty.span()=> #private::field::is_plain::<#ty>();));

    quote! {
        #[doc = #doc]
        #[automatically_derived]
        #[derive(::core::fmt::Debug, #rkyv::bytecheck::CheckBytes #(, #derives)*)]
        #[bytecheck(
            crate = #rkyv::bytecheck,
            bounds(
                __C: #rkyv::validation::ArchiveContext,
                <__C as #rkyv::rancor::Fallible>::Error: #rkyv::rancor::Source,
            )
        )]
        #archived_type

        #[allow(unused_variables, dead_code, non_camel_case_types, clippy::all, clippy::pedantic)]
        const _: () = {
            fn every_field_is_a_record() { #(#field_checks)* }

            #items

            // SAFETY: the representation is fixed (`repr(C)` or `repr(u8)`) and every field is the archived
            // form of a type, which is portable.
            #[automatically_derived]
            unsafe impl #rkyv::Portable for #archived {}

            #[automatically_derived]
            impl #rkyv::Archive for #name {
                type Archived = #archived;
                type Resolver = #resolver;

                // SAFETY: the condition says that both types have the same size and alignment, no
                // padding, and the same bytes in the same places.
                const COPY_OPTIMIZATION: #rkyv::traits::CopyOptimization<Self> = unsafe {
                    #rkyv::traits::CopyOptimization::enable_if(#copy)
                };

                #[inline]
                fn resolve(&self, resolver: Self::Resolver, out: #rkyv::Place<Self::Archived>) {
                    #resolve
                }
            }

            #[automatically_derived]
            impl #rkyv::Serialize<#private::RecordSerializer> for #name {
                #[inline]
                fn serialize(
                    &self,
                    serializer: &mut #private::RecordSerializer,
                ) -> ::core::result::Result<Self::Resolver, #rkyv::rancor::Error> {
                    ::core::result::Result::Ok(#serialize)
                }
            }

            #[automatically_derived]
            impl #rkyv::Deserialize<#name, #private::RecordDeserializer> for #archived {
                #[inline]
                fn deserialize(
                    &self,
                    deserializer: &mut #private::RecordDeserializer,
                ) -> ::core::result::Result<#name, #rkyv::rancor::Error> {
                    ::core::result::Result::Ok(#deserialize)
                }
            }

            #[automatically_derived]
            impl #private::Record for #name {
                const SCHEMA_VERSION: u32 = #schema_version;
                const FIXED: bool = true #(&& #private::field::is_fixed::<#field_types>())*;

                fn schema_name() -> ::std::borrow::Cow<'static, str> {
                    ::std::borrow::Cow::Borrowed(#schema_name)
                }
            }
        };
    }
}
