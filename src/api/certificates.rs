//! `/certificates`: what this node issued or holds; giving, splitting, merging and redeeming it.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::extract::{Body, Id};
use super::types::{
    Acknowledged, Certificate, FetchFrom, FileBody, GiftTo, Gifted, ImportCertificate,
    MergeCertificates, Pull, PullImage, RedeemBody, Redeemed, SlotRange, SplitInto, SplitOff,
};
use super::{
    ApiError, ApiState, FileText, Listed, Page, Prefix, Query, RedeemCall, ShellCommand, Target,
};
use capex_core::certificate::carve;
use capex_core::certificate::file::{self, TEXT_MAX_BYTES};
use capex_core::certificate::objects::Area;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::io::Done;
use capex_core::engine::leases::LeaseCommand;
use capex_core::ids::{CertId, Key};
use capex_core::lease::pull::ImageRef;
use capex_core::limits::{MERGE_PARTS_MAX, WORKLOAD_MAX_BYTES};
use capex_core::reason;
use capex_core::units::{UnitRange, Units, Window};

/// An upload: the largest workload in base64, and room for names and arguments.
pub(super) const UPLOAD_MAX_BYTES: usize =
    (WORKLOAD_MAX_BYTES as usize).div_ceil(3) * 4 + super::BODY_MAX_BYTES;

/// A certificate file, with a line end that JSON writes as two bytes.
const IMPORT_MAX_BYTES: usize = TEXT_MAX_BYTES + super::BODY_MAX_BYTES;

pub(super) fn routes() -> Router<ApiState> {
    let upload = post(redeem).layer(DefaultBodyLimit::max(UPLOAD_MAX_BYTES));
    Router::new()
        .route("/certificates", get(list))
        .route("/certificates/import", post(import).layer(DefaultBodyLimit::max(IMPORT_MAX_BYTES)))
        .route("/certificates/{id}", get(show))
        .route("/certificates/{id}/file", get(text))
        .route("/certificates/{id}/gift", post(gift))
        .route("/certificates/{id}/recall", post(recall))
        .route("/certificates/{id}/split", post(split))
        .route("/certificates/merge", post(merge))
        .route("/certificates/{id}/fetch", post(fetch))
        .route("/certificates/{id}/pull", post(pull))
        .route("/certificates/{id}/redeem", upload)
        .route("/certificates/{id}/workload", delete(detach))
}

async fn list(State(state): State<ApiState>, page: Page) -> Result<Listed<Certificate>, ApiError> {
    state.node.query(Query::Certificates(page)).await
}

async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Certificate>, ApiError> {
    Ok(Json(state.node.query(Query::Certificate(id)).await?))
}

async fn text(State(state): State<ApiState>, Id(id): Id) -> Result<Response, ApiError> {
    let FileText(text) = state.node.query(Query::CertificateFile(id)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

async fn gift(
    State(state): State<ApiState>,
    Id(id): Id,
    Body(body): Body<GiftTo>,
) -> Result<Json<Gifted>, ApiError> {
    let to = key("to", &body.to)?;
    let command = if body.qty.is_none() && body.window.is_none() {
        HoldingsCommand::Gift { cert: whole_id(&state, id).await?, to }
    } else {
        let (cert, whole) = area(&state, id).await?;
        match carve(&whole, body.qty, body.window.map(window)) {
            Some(parts) => HoldingsCommand::Split { cert, parts, give: Some((0, to)) },
            None if is_all(&whole, body.qty, body.window) => HoldingsCommand::Gift { cert, to },
            None => return Err(outside()),
        }
    };
    match state.node.command(command).await? {
        Done::Gifted { cert, seq } => {
            Ok(Json(Gifted { cert_id: cert.to_string(), to: to.to_string(), seq }))
        }
        _ => Err(ApiError::internal("expected Gifted")),
    }
}

async fn recall(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Certificate>, ApiError> {
    let cert = whole_id(&state, id).await?;
    match state.node.command(HoldingsCommand::Recall { cert }).await? {
        Done::Gifted { cert, .. } => {
            Ok(Json(state.node.query(Query::Certificate(whole_prefix(cert)?)).await?))
        }
        _ => Err(ApiError::internal("expected Gifted")),
    }
}

async fn split(
    State(state): State<ApiState>,
    Id(id): Id,
    Body(body): Body<SplitOff>,
) -> Result<Json<SplitInto>, ApiError> {
    let (cert, whole) = area(&state, id).await?;
    let parts = carve(&whole, body.qty, body.window.map(window)).ok_or_else(outside)?;
    let Done::Split { parts } =
        state.node.command(HoldingsCommand::Split { cert, parts, give: None }).await?
    else {
        return Err(ApiError::internal("expected Split"));
    };
    let mut certificates = Vec::new();
    for part in parts {
        certificates.push(state.node.query(Query::Certificate(whole_prefix(part)?)).await?);
    }
    Ok(Json(SplitInto { cert_id: cert.to_string(), parts: certificates }))
}

async fn merge(
    State(state): State<ApiState>,
    Body(body): Body<MergeCertificates>,
) -> Result<Json<Certificate>, ApiError> {
    if body.certs.len() > MERGE_PARTS_MAX {
        let reason = reason!("merge.bad_parts");
        return Err(ApiError::new(reason, "a merge joins 2 to 8 certificates"));
    }
    let mut certs = Vec::new();
    for prefix in &body.certs {
        certs.push(whole_id(&state, Prefix::parse(prefix)?).await?);
    }
    match state.node.command(HoldingsCommand::Merge { certs }).await? {
        Done::Held { cert } => {
            Ok(Json(state.node.query(Query::Certificate(whole_prefix(cert)?)).await?))
        }
        _ => Err(ApiError::internal("expected Held")),
    }
}

fn whole_prefix(cert: CertId) -> Result<Prefix, ApiError> {
    Prefix::parse(&cert.to_string())
}

/// Id, units and window of a certificate.
async fn area(state: &ApiState, id: Prefix) -> Result<(CertId, Area), ApiError> {
    let certificate: Certificate = state.node.query(Query::Certificate(id)).await?;
    let cert = certificate.cert_id.parse().map_err(|_| ApiError::internal("expected an id"))?;
    let ranges = certificate.units.iter().map(|&[first, end]| UnitRange { first, end }).collect();
    let units = Units::new(ranges).ok_or_else(|| ApiError::internal("expected units"))?;
    Ok((cert, Area { units, window: window(certificate.window) }))
}

fn window([start, end]: SlotRange) -> Window {
    Window { start, end }
}

/// Whether a part is the whole.
fn is_all(whole: &Area, qty: Option<u32>, part: Option<SlotRange>) -> bool {
    qty.is_none_or(|qty| qty == whole.units.count())
        && part.is_none_or(|part| window(part) == whole.window)
}

fn outside() -> ApiError {
    let what = "the certificate has not so many units or slots, or nothing would be left of it";
    ApiError::new(reason!("split.outside"), what)
}

/// Gets a certificate that this node does not know yet, so its id is given whole.
async fn fetch(
    State(state): State<ApiState>,
    Id(id): Id,
    Body(body): Body<FetchFrom>,
) -> Result<Json<Certificate>, ApiError> {
    let provider = key("provider", &body.provider)?;
    let cert: CertId = id.as_str().parse().map_err(|_| {
        ApiError::new(reason!("id.syntax"), "a certificate to fetch needs all 64 digits of its id")
    })?;
    let _: Done = state.node.command(HoldingsCommand::Fetch { cert, provider }).await?;
    Ok(Json(state.node.query(Query::Certificate(id)).await?))
}

/// Takes in what a file says that this node holds.
async fn import(
    State(state): State<ApiState>,
    Body(body): Body<ImportCertificate>,
) -> Result<Json<Certificate>, ApiError> {
    let provider = body.provider.as_deref().map(|text| key("provider", text)).transpose()?;
    let certificate = file::parse(&body.file, &state.params)
        .map_err(|error| ApiError::new(error.reason(), error.to_string()))?;
    // One without an id is refused on import.
    let id = certificate.id(state.params.magic).unwrap_or(CertId([0; 32])).to_string();
    let certificate = Box::new(certificate);
    let _: Done = state.node.command(HoldingsCommand::Import { certificate, provider }).await?;
    Ok(Json(state.node.query(Query::Certificate(Prefix::parse(&id)?)).await?))
}

fn key(field: &str, text: &str) -> Result<Key, ApiError> {
    text.parse()
        .map_err(|error| ApiError::new(reason!("key.syntax"), format!("`{field}`: {error}")))
}

async fn redeem(
    State(state): State<ApiState>,
    Id(id): Id,
    Body(body): Body<RedeemBody>,
) -> Result<Json<Redeemed>, ApiError> {
    let Ok(_upload) = state.uploads.try_acquire() else {
        return Err(ApiError::new(reason!("api.busy"), "other uploads are in progress"));
    };
    let cert = whole_id(&state, id).await?;
    let call = redeem_call(Target::Certificate(cert), body)?;
    match state.node.shell(ShellCommand::Redeem(Box::new(call))).await? {
        Done::Redeemed { lease } => {
            Ok(Json(Redeemed { cert_id: cert.to_string(), lease_id: lease.to_string() }))
        }
        _ => Err(ApiError::internal("expected Redeemed")),
    }
}

/// Has the provider fetch an image, and asks how far that is.
async fn pull(
    State(state): State<ApiState>,
    Id(id): Id,
    Body(body): Body<PullImage>,
) -> Result<Json<Pull>, ApiError> {
    let image = ImageRef::parse(&body.image).ok_or_else(|| {
        ApiError::new(reason!("pull.name"), "`image` is not of the form NAME@sha256:DIGEST")
    })?;
    let cert = whole_id(&state, id).await?;
    match state.node.command(LeaseCommand::Pull { cert, image }).await? {
        Done::Pulled(pulled) => Ok(Json(Pull {
            received_bytes: pulled.received_bytes,
            total_bytes: pulled.total_bytes,
            complete: !pulled.documents.is_empty(),
        })),
        _ => Err(ApiError::internal("expected Pulled")),
    }
}

async fn detach(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Acknowledged>, ApiError> {
    let cert = whole_id(&state, id).await?;
    let _: Done = state.node.command(LeaseCommand::Detach(cert)).await?;
    Ok(Json(Acknowledged { ok: true }))
}

pub(super) async fn whole_id(state: &ApiState, id: Prefix) -> Result<CertId, ApiError> {
    let certificate: Certificate = state.node.query(Query::Certificate(id)).await?;
    certificate.cert_id.parse().map_err(|_| ApiError::internal("certificate id"))
}

pub(super) fn redeem_call(target: Target, mut body: RedeemBody) -> Result<RedeemCall, ApiError> {
    let kinds = [!body.component_base64.is_empty(), body.image.is_some(), body.pull.is_some()];
    if kinds.into_iter().filter(|is_given| *is_given).count() != 1 {
        let why = "it is either a component or an image, here or in a registry";
        return Err(ApiError::new(reason!("workload.invalid"), why));
    }
    let component = decode("component_base64", &std::mem::take(&mut body.component_base64))?;
    let inputs = std::mem::take(&mut body.inputs).into_iter();
    let inputs = inputs
        .map(|FileBody { name, base64 }| decode(&name, &base64).map(|bytes| (name, bytes)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RedeemCall { target, component, inputs, body })
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, ApiError> {
    BASE64.decode(text).map_err(|error| {
        ApiError::new(reason!("workload.invalid"), format!("{}: {error}", what.escape_default()))
    })
}
