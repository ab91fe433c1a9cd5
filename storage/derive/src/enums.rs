//! Records that are enums: unit, tuple and struct variants.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    DataEnum, Error, Expr, ExprLit, Fields, Ident, Index, Lit, Member, Result, Variant, ext::IdentExt,
};

use crate::record::{Names, Parts, archived_of, docs, function, resolver_of};

/// The parts of an enum.
///
/// The archived enum is `repr(u8)` with the same variants. Its layout is, by the language's definition,
/// that of a union of `repr(C)` structs that all begin with the tag: those are written out so that a variant's
/// fields can be resolved one by one. The resolver is an enum with the variants' resolvers.
///
/// # Errors
/// When there is no variant, or more than 256.
pub(crate) fn parts(names: &Names<'_>, data: &DataEnum) -> Result<Parts> {
    let Names { name, vis, archived, rkyv, .. } = names;
    if data.variants.is_empty() {
        return Err(Error::new_spanned(
            name,
            "an enum without variants has no values and cannot be a record",
        ));
    }
    let tags = tags(data)?;
    let variants: Vec<_> = data.variants.iter().map(|v| expand_variant(names, v)).collect();
    let idents: Vec<_> = data.variants.iter().map(|v| &v.ident).collect();

    let archived_variants = data.variants.iter().zip(&tags).map(|(variant, tag)| {
        let docs = docs(&variant.attrs, "The variant in its archived form.");
        let (ident, body) = (&variant.ident, archived_body(names, &variant.fields));
        quote!(#docs #ident #body = #tag,)
    });
    let definitions = variants.iter().map(|v| &v.definition);
    let resolver_variants = variants.iter().map(|v| &v.resolver);
    let resolves = variants.iter().map(|v| &v.resolve);
    let serializes = variants.iter().map(|v| &v.serialize);
    let deserializes = variants.iter().map(|v| &v.deserialize);

    let copy = if data.variants.iter().all(|v| matches!(v.fields, Fields::Unit)) {
        quote! {
            ::core::mem::size_of::<#name>() == 1
                // SAFETY: the value's only byte is read, which is initialised because the type has one byte and no fields.
                #(&& {
                    let value = ::core::mem::ManuallyDrop::new(#name::#idents);
                    unsafe { *(&raw const value).cast::<u8>() == #tags }
                })*
        }
    } else {
        quote!(false)
    };

    Ok(Parts {
        archived_type: quote!(#[repr(u8)] #vis enum #archived { #(#archived_variants)* }),
        items: quote! {
            #[repr(u8)]
            enum Tag { #(#idents = #tags,)* }
            // SAFETY: `repr(u8)` and no fields: one byte, the same on every machine, and no padding.
            unsafe impl #rkyv::Portable for Tag {}
            unsafe impl #rkyv::traits::NoUndef for Tag {}
            #(#definitions)*
            pub enum Resolver { #(#resolver_variants)* }
        },
        resolver: quote!(Resolver),
        copy,
        resolve: quote! {
            match (self, resolver) {
                #(#resolves)*
                #[allow(unreachable_patterns)]
                _ => ::core::unreachable!("the resolver is of another variant"),
            }
        },
        serialize: quote!(match self { #(#serializes)* }),
        deserialize: quote!(match self { #(#deserializes)* }),
    })
}

/// The tag of each variant: the discriminants where all are literals that fit a byte, else the positions.
fn tags(data: &DataEnum) -> Result<Vec<u8>> {
    if data.variants.len() > 256 {
        let message = "an enum with more than 256 variants cannot be a record";
        return Err(Error::new_spanned(&data.variants, message));
    }
    let positions = || (0..=u8::MAX).take(data.variants.len()).collect();
    let mut next: u32 = 0;
    let mut tags = Vec::new();
    for variant in &data.variants {
        match &variant.discriminant {
            None => {}
            Some((_, Expr::Lit(ExprLit { lit: Lit::Int(literal), .. }))) => match literal.base10_parse() {
                Ok(value) => next = value,
                Err(_) => return Ok(positions()),
            },
            Some(_) => return Ok(positions()),
        }
        let Ok(tag) = u8::try_from(next) else { return Ok(positions()) };
        tags.push(tag);
        next += 1;
    }
    Ok(tags)
}

/// Fields of a variant of the archived enum.
fn archived_body(names: &Names<'_>, fields: &Fields) -> TokenStream {
    let archived = fields.iter().map(|field| {
        let (ident, colon, ty) = (&field.ident, &field.colon_token, &field.ty);
        let archived = archived_of(names, ty);
        let docs = docs(&field.attrs, "The field in its archived form.");
        quote!(#docs #[bytecheck(omit_bounds)] #ident #colon #archived,)
    });
    match fields {
        Fields::Named(_) => quote!({ #(#archived)* }),
        Fields::Unnamed(_) => quote!((#(#archived)*)),
        Fields::Unit => quote!(),
    }
}

/// The pieces of one variant.
struct ExpandedVariant {
    definition: TokenStream,
    resolver: TokenStream,
    resolve: TokenStream,
    serialize: TokenStream,
    deserialize: TokenStream,
}

fn expand_variant(names: &Names<'_>, variant: &Variant) -> ExpandedVariant {
    let Names { name, archived, rkyv, .. } = names;
    let ident = &variant.ident;
    let layout = format_ident!("Variant{}", ident.unraw());
    let members: Vec<Member> = variant.fields.members().collect();
    let types: Vec<_> = variant.fields.iter().map(|f| &f.ty).collect();
    let bindings: Vec<Ident> = (0..members.len()).map(|i| format_ident!("field_{i}")).collect();
    let resolvers: Vec<Ident> = (0..members.len()).map(|i| format_ident!("resolver_{i}")).collect();
    let archived_types = types.iter().map(|ty| archived_of(names, ty));
    let resolver_types = types.iter().map(|ty| resolver_of(names, ty));
    let resolve = types.iter().map(|ty| function(names, "resolve", ty));
    let serialize = types.iter().map(|ty| function(names, "serialize", ty));
    let deserialize = types.iter().map(|ty| function(names, "deserialize", ty));
    // Field 0 of the layout is the tag.
    let places = (1..=members.len()).map(Index::from);

    ExpandedVariant {
        definition: quote! {
            #[repr(C)]
            struct #layout(Tag, #(#archived_types,)*);
        },
        resolver: quote!(#ident(#(#resolver_types,)*),),
        resolve: quote! {
            (#name::#ident { #(#members: #bindings,)* }, Resolver::#ident(#(#resolvers,)*)) => {
                // SAFETY: a variant of a `repr(u8)` enum has the layout of this struct; the pointers are to its fields.
                let out = unsafe { out.cast_unchecked::<#layout>() };
                // SAFETY: the tag is the layout's first field.
                let tag = unsafe {
                    let tag = ::core::ptr::addr_of_mut!((*out.ptr()).0);
                    #rkyv::Place::from_field_unchecked(out, tag)
                };
                tag.write(Tag::#ident);
                #(
                    // SAFETY: the pointer is to a field of the layout.
                    let field = unsafe {
                        let field = ::core::ptr::addr_of_mut!((*out.ptr()).#places);
                        #rkyv::Place::from_field_unchecked(out, field)
                    };
                    #resolve(#bindings, #resolvers, field);
                )*
            }
        },
        serialize: quote! {
            #name::#ident { #(#members: #bindings,)* } => Resolver::#ident(#(
                #serialize(#bindings, serializer)?,
            )*),
        },
        deserialize: quote! {
            #archived::#ident { #(#members: #bindings,)* } => #name::#ident {
                #(
                    #members: #deserialize(#bindings, deserializer)?,
                )*
            },
        },
    }
}
