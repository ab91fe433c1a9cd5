//! `#[derive(WriteAs)]`: a struct with borrowed fields that is written as a record.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Data, DeriveInput, Error, Field, GenericArgument, Index, Path, PathArguments, Result, Token, Type,
    parse::{Parse, ParseStream},
    parse_quote,
    spanned::Spanned,
};

use crate::{attributes::default_crate, record::private};

/// Expands the derive.
///
/// # Errors
/// When the type is no struct, has type parameters, or does not say what it is written as.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "`WriteAs` can be derived for structs only"));
    };
    if let Some(parameter) =
        input.generics.params.iter().find(|p| !matches!(p, syn::GenericParam::Lifetime(_)))
    {
        return Err(Error::new_spanned(parameter, "`WriteAs` can be derived with lifetimes only"));
    }
    let Some(target) = target(&input.attrs)? else {
        let message = "which record is it written as? Say `#[write_as(Record)]`";
        return Err(Error::new_spanned(&input.ident, message));
    };

    let private = private(&target.krate);
    let rkyv = quote!(#private::rkyv);
    let record = &target.record;
    let name = &input.ident;
    let (impl_generics, ty_generics, _) = input.generics.split_for_impl();
    let members: Vec<_> = data.fields.members().collect();
    let indices = (0..members.len()).map(Index::from);
    let write_as = data
        .fields
        .iter()
        .map(|field| {
            let (ty, owned) = (&field.ty, owned_field(field)?);
            Ok(quote_spanned!(ty.span()=> <#ty as #private::WriteAs<#owned>>))
        })
        .collect::<Result<Vec<_>>>()?;

    // In the user's own span, so that the compiler names a field that is missing.
    let all_fields = quote!(let #record { #(#members: _,)* } = record;)
        .into_iter()
        .map(|mut token| {
            token.set_span(name.span());
            token
        })
        .collect::<TokenStream>();
    // Parts out of line are validated in the order of the record's fields, so they have to be written in it.
    let in_order = members.windows(2).map(|pair| {
        let (first, second) = (&pair[0], &pair[1]);
        quote_spanned! {name.span()=>
            ::core::assert!(
                ::core::mem::offset_of!(Archived, #first) <= ::core::mem::offset_of!(Archived, #second),
                "the fields are not in the order of the record's fields",
            );
        }
    });

    Ok(quote! {
        #[allow(unused_variables, dead_code, clippy::all, clippy::pedantic)]
        const _: () = {
            // The record's fields are exactly these.
            fn every_field_is_written(record: &#record) {
                #all_fields
            }
            type Archived = <#record as #rkyv::Archive>::Archived;
            #(const _: () = #in_order)*

            // SAFETY: every field of the archived struct is written, as the check above makes sure.
            #[automatically_derived]
            unsafe impl #impl_generics #private::WriteAs<#record> for #name #ty_generics {
                type Resolver = (#(#write_as::Resolver,)*);

                #[inline]
                fn serialize_as(
                    &self,
                    serializer: &mut #private::RecordSerializer,
                ) -> ::core::result::Result<Self::Resolver, #rkyv::rancor::Error> {
                    ::core::result::Result::Ok((#(#write_as::serialize_as(&self.#members, serializer)?,)*))
                }

                #[inline]
                fn resolve_as(
                    &self,
                    resolver: Self::Resolver,
                    out: #rkyv::Place<<#record as #rkyv::Archive>::Archived>,
                ) {
                    #(
                        // SAFETY: the pointer is to a field of the place.
                        let field = unsafe {
                            let field = ::core::ptr::addr_of_mut!((*out.ptr()).#members);
                            #rkyv::Place::from_field_unchecked(out, field)
                        };
                        #write_as::resolve_as(&self.#members, resolver.#indices, field);
                    )*
                }
            }
        };
    })
}

/// The attribute `#[write_as(Record, crate = path)]`.
struct Target {
    record: Path,
    krate: Path,
}

impl Parse for Target {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let record = input.parse()?;
        let mut krate = default_crate();
        if input.peek(Token![,]) {
            input.parse::<Token![,]>()?;
            input.parse::<Token![crate]>()?;
            input.parse::<Token![=]>()?;
            krate = input.parse()?;
        }
        Ok(Self { record, krate })
    }
}

/// What `#[write_as(…)]` among these attributes says.
fn target(attributes: &[syn::Attribute]) -> Result<Option<Target>> {
    attributes.iter().find(|a| a.path().is_ident("write_as")).map(|a| a.parse_args()).transpose()
}

/// The type of the record's field that this field is written as.
fn owned_field(field: &Field) -> Result<Type> {
    Ok(match target(&field.attrs)? {
        Some(Target { record, .. }) => parse_quote!(#record),
        None => owned(&field.ty).unwrap_or_else(|| field.ty.clone()),
    })
}

/// The owned form of a borrowed type; `None` if it is not borrowed.
fn owned(ty: &Type) -> Option<Type> {
    match ty {
        Type::Reference(reference) => match &*reference.elem {
            Type::Slice(slice) => {
                let elem = &slice.elem;
                Some(parse_quote!(::std::vec::Vec<#elem>))
            }
            Type::Path(path) if path.path.is_ident("str") => Some(parse_quote!(::std::string::String)),
            _ => None,
        },
        Type::Path(path) => {
            let last = path.path.segments.last().filter(|s| s.ident == "Option")?;
            let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
            let Some(GenericArgument::Type(inner)) = arguments.args.first() else { return None };
            let inner = owned(inner)?;
            Some(parse_quote!(::core::option::Option<#inner>))
        }
        _ => None,
    }
}
