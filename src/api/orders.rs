//! `/orders`: what this node keeps in the market.

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::certificates::{UPLOAD_MAX_BYTES, redeem_call};
use super::extract::{Body, Id, Params as Asked};
use super::types::{
    Acknowledged, Certificate, ClassLimit, Explanation, Mode, Order, PlaceOrder, Placed, Preview,
    Quote, Side, TimeInForce,
};
use super::{ApiError, ApiState, Listed, Page, Prefix, Query, ShellCommand, Target};
use capex_core::engine::io::Done;
use capex_core::engine::market::MarketCommand;
use capex_core::engine::market::{self, OrderSpec};
use capex_core::ids::Key;
use capex_core::limits::ALTS_MAX;
use capex_core::order::{self, Alternative};
use capex_core::params::Params;
use capex_core::reason;
use capex_core::settlement::fees::FeeLimit;
use capex_core::units::Window;

pub(super) fn routes() -> Router<ApiState> {
    let upload = post(place).layer(DefaultBodyLimit::max(UPLOAD_MAX_BYTES));
    Router::new()
        .route("/orders", get(list).merge(upload))
        .route("/orders/preview", post(preview))
        .route("/orders/{id}", get(show).delete(cancel))
        .route("/orders/{id}/explain", get(explain))
        .route("/quote", post(quote))
}

async fn list(State(state): State<ApiState>, page: Page) -> Result<Listed<Order>, ApiError> {
    state.node.query(Query::Orders(page)).await
}

async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Order>, ApiError> {
    Ok(Json(state.node.query(Query::Order(id)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    epoch: Option<u64>,
}

async fn explain(
    State(state): State<ApiState>,
    Id(order): Id,
    Asked(which): Asked<Which>,
) -> Result<Json<Explanation>, ApiError> {
    let query = Query::Explain { order, epoch: which.epoch };
    Ok(Json(state.node.query(query).await?))
}

async fn preview(
    State(state): State<ApiState>,
    Body(body): Body<PlaceOrder>,
) -> Result<Json<Preview>, ApiError> {
    let spec = spec_of(&body, &state).await?;
    Ok(Json(state.node.query(Query::Preview(Box::new(spec))).await?))
}

async fn quote(
    State(state): State<ApiState>,
    Body(body): Body<PlaceOrder>,
) -> Result<Json<Quote>, ApiError> {
    let spec = spec_of(&body, &state).await?;
    Ok(Json(state.node.query(Query::Quote(Box::new(spec))).await?))
}

async fn place(
    State(state): State<ApiState>,
    Body(mut body): Body<PlaceOrder>,
) -> Result<Json<Placed>, ApiError> {
    let workload = body.workload.take();
    let spec = Box::new(spec_of(&body, &state).await?);
    let placed: Done = match workload {
        None => state.node.command(MarketCommand::Place(spec)).await?,
        Some(workload) => {
            let Ok(_upload) = state.uploads.try_acquire() else {
                return Err(ApiError::new(reason!("api.busy"), "other uploads are in progress"));
            };
            if !workload.env_sealed.is_empty() {
                let why = "a sealed value is for one certificate, and this one is not bought yet";
                return Err(ApiError::new(reason!("attach.sealed"), why));
            }
            let call = redeem_call(Target::Order(spec), *workload)?;
            state.node.shell(ShellCommand::Redeem(Box::new(call))).await?
        }
    };
    match placed {
        Done::Placed(id) => Ok(Json(Placed { order_id: id.to_string() })),
        _ => Err(ApiError::internal("expected Placed")),
    }
}

async fn cancel(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Acknowledged>, ApiError> {
    let order: Order = state.node.query(Query::Order(id)).await?;
    let id = order.order_id.parse().map_err(|_| ApiError::internal("order id"))?;
    state.node.command(MarketCommand::Cancel(id)).await?;
    Ok(Json(Acknowledged { ok: true }))
}

/// Number of a class by its name.
pub(super) fn class_id(name: &str, params: &Params) -> Result<u16, ApiError> {
    params.class_named(name).map(|class| class.floors.id).ok_or_else(|| {
        let known: Vec<&str> = params.classes.iter().map(|class| class.name.as_str()).collect();
        let message = format!("no class `{}`", name.escape_default());
        ApiError::new(reason!("order.unknown_class"), message)
            .with_hint(format!("known classes: {}", known.join(", ")))
    })
}

/// The engine's form of an order, and of the certificate that it sells.
async fn spec_of(body: &PlaceOrder, state: &ApiState) -> Result<OrderSpec, ApiError> {
    let spec = order_spec(body, state)?;
    let Some(cert) = &body.cert_id else {
        if body.side == Side::Sell {
            state.look_at_host().await?;
        }
        return Ok(spec);
    };
    if body.side == Side::Buy {
        let message = "cert_id belongs to an ask: what a bid buys is matched";
        return Err(ApiError::new(reason!("order.run"), message));
    }
    let query = Query::Certificate(Prefix::parse(cert)?);
    let certificate: Certificate = state.node.query(query).await?;
    let cert = certificate.cert_id.parse().map_err(|_| ApiError::internal("certificate id"))?;
    // An ask that names no feature offers what the certificate has.
    let features = match body.features.as_slice() {
        [] => features(&certificate.features, &state.params)?,
        _ => spec.features,
    };
    Ok(OrderSpec { cert: Some(cert), features, ..spec })
}

/// The engine's form of an order but for its certificate. Names and keys are read here; what the order may say is
/// decided by admission's rules alone.
fn order_spec(body: &PlaceOrder, state: &ApiState) -> Result<OrderSpec, ApiError> {
    let params = &state.params;
    let selling = body.side == Side::Sell;
    let spec = OrderSpec {
        side: if selling { order::Side::Sell } else { order::Side::Buy },
        alts: alternatives(body, params)?,
        // What is spare is counted when it is offered.
        qty: if body.all_spare { body.min_qty.max(1) } else { body.qty },
        min_qty: body.min_qty,
        mode: if body.mode == Mode::Gang { order::Mode::Gang } else { order::Mode::Sticky },
        window: Window { start: body.window[0], end: body.window[1] },
        slots: body.slots,
        features: features(&body.features, params)?,
        allow: keys("allow", &body.allow)?,
        deny: keys("deny", &body.deny)?,
        min_run: if selling { body.min_run.max(1) } else { body.min_run },
        time_in_force: time_in_force(body)?,
        beneficiary: body
            .beneficiary
            .as_deref()
            .map(|text| key("beneficiary", text))
            .transpose()?,
        use_by: body.use_by,
        is_recallable: body.recall,
        pool: None,
        fees: FeeLimit {
            share_percent: body.max_fee_percent.unwrap_or(state.max_fee_percent),
            cap_sat: body.max_fee_sat,
        },
        cert: None,
        is_spare: body.all_spare,
    };
    if body.all_spare && body.qty > 0 {
        let message = "all_spare stands in place of qty";
        return Err(ApiError::new(reason!("order.quantity"), message));
    }
    spec.check(params).map_err(|error| ApiError::new(error.reason(), error.to_string()))?;
    Ok(spec)
}

/// Classes by name. One too many is enough for the rules to refuse all.
fn alternatives(body: &PlaceOrder, params: &Params) -> Result<Vec<Alternative>, ApiError> {
    let alternative = |limit: &ClassLimit| {
        let class = class_id(&limit.class, params)?;
        Ok(Alternative { class, limit_msat: limit.limit_msat })
    };
    body.alternatives.iter().take(ALTS_MAX + 1).map(alternative).collect()
}

fn time_in_force(body: &PlaceOrder) -> Result<market::TimeInForce, ApiError> {
    match (body.time_in_force, body.expires_at) {
        (TimeInForce::Gtt, Some(at)) => Ok(market::TimeInForce::GoodTillTime(at)),
        (TimeInForce::Gtc, None) => Ok(market::TimeInForce::GoodTillCancelled),
        (TimeInForce::Ioc, None) => Ok(market::TimeInForce::ImmediateOrCancel),
        (TimeInForce::Fok, None) => Ok(market::TimeInForce::FillOrKill),
        _ => {
            let message = "expires_at belongs to gtt, and gtt needs it";
            Err(ApiError::new(reason!("order.time_in_force"), message))
        }
    }
}

pub(super) fn features(names: &[String], params: &Params) -> Result<u64, ApiError> {
    let bit = |name: &String| {
        let bit = params.features.get(name).and_then(|bit| 1_u64.checked_shl(u32::from(*bit)));
        bit.ok_or_else(|| {
            let message = format!("no feature `{}`", name.escape_default());
            ApiError::new(reason!("order.unknown_feature"), message)
        })
    };
    names.iter().map(bit).try_fold(0, |bits, bit| Ok(bits | bit?))
}

/// Keys in the ascending form that an order needs.
pub(super) fn keys(field: &str, texts: &[String]) -> Result<Vec<Key>, ApiError> {
    let mut keys = texts.iter().map(|text| key(field, text)).collect::<Result<Vec<_>, _>>()?;
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

pub(super) fn key(field: &str, text: &str) -> Result<Key, ApiError> {
    text.parse()
        .map_err(|error| ApiError::new(reason!("key.syntax"), format!("`{field}`: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::ApiHandle;
    use crate::definitions;

    fn bid() -> serde_json::Value {
        serde_json::json!({
            "side": "buy", "alternatives": [{"class": "cpu.standard", "limit_msat": 20_000}],
            "qty": 2, "min_qty": 2, "window": [100, 104], "slots": 2,
        })
    }

    fn code_with(field: &str, value: serde_json::Value) -> Result<OrderSpec, String> {
        let mut body = bid();
        body[field] = value;
        let params = Arc::new(definitions::load("devnet").unwrap());
        let state = ApiState::new(ApiHandle::channel().0, params, 20);
        order_spec(&serde_json::from_value(body).unwrap(), &state).map_err(|error| error.code)
    }

    #[test]
    fn bodies_become_specs() {
        let spec = code_with("mode", "gang".into()).unwrap();
        assert_eq!(spec.alts, [Alternative { class: 1, limit_msat: 20_000 }]);
        assert_eq!((spec.slots, spec.min_run, spec.mode), (2, 0, order::Mode::Gang));
        let spec = code_with("features", serde_json::json!(["tee", "ecc"])).unwrap();
        assert_eq!(spec.features, 3);
        assert_eq!(spec.fees, FeeLimit { share_percent: 20, cap_sat: None });
        let spec = code_with("max_fee_sat", 500.into()).unwrap();
        assert_eq!(spec.fees, FeeLimit { share_percent: 20, cap_sat: Some(500) });
        let spec = code_with("max_fee_percent", 50.into()).unwrap();
        assert_eq!(spec.fees, FeeLimit { share_percent: 50, cap_sat: None });
        let [a, b] = ["bb".repeat(32), "aa".repeat(32)];
        let spec = code_with("allow", serde_json::json!([a, b, a])).unwrap();
        assert_eq!(spec.allow, [Key([0xaa; 32]), Key([0xbb; 32])]);
    }

    #[test]
    fn bad_bodies_are_refused_with_a_code() {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let table = [
            ("alternatives", "[]", "order.alternatives"),
            ("alternatives", r#"[{"class":"cpu.big","limit_msat":1}]"#, "order.unknown_class"),
            (
                "alternatives",
                r#"[{"class":"cpu.standard","limit_msat":0}]"#,
                "order.limit_out_of_range",
            ),
            ("qty", "0", "order.quantity"),
            ("qty", "10001", "order.quantity"),
            ("min_qty", "3", "order.quantity"),
            ("window", "[104, 104]", "order.window"),
            ("slots", "0", "order.run"),
            ("slots", "5", "order.run"),
            ("min_run", "1", "order.run"),
            ("side", r#""sell""#, "order.run"),
            ("time_in_force", r#""gtt""#, "order.time_in_force"),
            ("expires_at", "1", "order.time_in_force"),
            ("features", r#"["fast"]"#, "order.unknown_feature"),
            ("allow", r#"["zz"]"#, "key.syntax"),
            ("beneficiary", r#""AA""#, "key.syntax"),
            ("use_by", "104", "order.use_by"),
            ("recall", "true", "order.recall"),
        ];
        for (field, value, code) in table {
            assert_eq!(code_with(field, json(value)).unwrap_err(), code, "{field} {value}");
        }
    }
}
