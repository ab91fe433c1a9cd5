//! Records that are structs: named fields, tuple structs and unit structs.

use quote::quote;
use syn::{Fields, Index};

use crate::record::{Names, Parts, docs};

/// The parts of a struct.
///
/// The archived struct is `repr(C)` with the same fields; the resolver is the tuple of the fields' resolvers.
pub(crate) fn parts(names: &Names<'_>, fields: &Fields) -> Parts {
    let Names { name, vis, archived, private, rkyv } = names;
    let members: Vec<_> = fields.members().collect();
    let types: Vec<_> = fields.iter().map(|f| &f.ty).collect();
    let indices: Vec<_> = (0..members.len()).map(Index::from).collect();

    let archived_fields = fields.iter().map(|field| {
        let (vis, ident, colon, ty) = (&field.vis, &field.ident, &field.colon_token, &field.ty);
        let docs = docs(&field.attrs, "The field in its archived form.");
        quote!(#docs #[bytecheck(omit_bounds)] #vis #ident #colon <#ty as #rkyv::Archive>::Archived,)
    });
    let body = match fields {
        Fields::Named(_) => quote!({ #(#archived_fields)* }),
        Fields::Unnamed(_) => quote!((#(#archived_fields)*);),
        Fields::Unit => quote!(;),
    };

    Parts {
        archived_type: quote!(#[repr(C)] #vis struct #archived #body),
        items: quote!(),
        resolver: quote!((#(<#types as #rkyv::Archive>::Resolver,)*)),
        copy: quote! {
            ::core::mem::size_of::<#name>() == ::core::mem::size_of::<#archived>()
                && ::core::mem::align_of::<#name>() == ::core::mem::align_of::<#archived>()
                && ::core::mem::size_of::<#name>() == 0 #(+ ::core::mem::size_of::<#types>())*
                #(
                    && <#types as #rkyv::Archive>::COPY_OPTIMIZATION.is_enabled()
                    && ::core::mem::offset_of!(#name, #members)
                        == ::core::mem::offset_of!(#archived, #members)
                )*
        },
        resolve: quote! {
            #(
                // SAFETY: the pointer is to a field of the place.
                let field = unsafe {
                    let field = ::core::ptr::addr_of_mut!((*out.ptr()).#members);
                    #rkyv::Place::from_field_unchecked(out, field)
                };
                <#types as #rkyv::Archive>::resolve(&self.#members, resolver.#indices, field);
            )*
        },
        serialize: quote! {
            (#(
                <#types as #rkyv::Serialize<#private::RecordSerializer>>::serialize(&self.#members, serializer)?,
            )*)
        },
        deserialize: quote! {
            #name {
                #(
                    #members: <
                        <#types as #rkyv::Archive>::Archived
                            as #rkyv::Deserialize<#types, #private::RecordDeserializer>
                    >::deserialize(&self.#members, deserializer)?,
                )*
            }
        },
    }
}
