//! The matcher: books that it refuses, results that break a rule, and why two orders did not
//! trade.

use super::{Family, family};

pub(super) const FAMILIES: &[Family] = &[
    family! {
        "match", "matcher: a file of orders";
        "match.algorithm": Rejected, Local, "there is no such version of the matching rules";
        "match.beacon": Rejected, Local, "the beacon is not 64 hex digits";
        "match.class_range": Rejected, Local, "a class is a number from 0 to 65,535";
        "match.duplicate_id": Rejected, Local, "two orders have one id";
        "match.empty_window": Rejected, Local, "an order has an empty window";
        "match.horizon_too_long": Rejected, Local, "live orders span too many slots";
        "match.hours_too_long": Rejected, Local, "an order asks for too many hours";
        "match.infeasible": Failed, Local, "the accepted trades have no common price";
        "match.input_too_long": Rejected, Local, "the input is too long";
        "match.integer_range": Rejected, Local, "an integer is out of its range";
        "match.malformed_json": Rejected, Local, "the input is not JSON";
        "match.max_legs": Rejected, Local, "the bound of asks for one bid is out of its range";
        "match.missing_field": Rejected, Local, "a field is missing";
        "match.no_alternatives": Rejected, Local, "a bid has no alternative";
        "match.plot_array": Rejected, Local, "a picture shows one book, not an array of them",
            "give --input a file of one book";
        "match.plot_empty": Rejected, Local, "the book has nothing to draw";
        "match.plot_nothing_there": Rejected, Local, "nobody trades or offers there",
            "without --class and --slot it shows where most units trade";
        "match.plot_unwritable": Usage, Local, "the picture cannot be written";
        "match.qty_too_large": Rejected, Local, "an order has too many units";
        "match.repeated_class": Rejected, Local, "an order names a class twice";
        "match.starts": Rejected, Local, "the number of starts is out of its range";
        "match.too_many_alternatives": Rejected, Local, "a bid has too many alternatives";
        "match.too_many_books": Rejected, Local, "the input has too many books",
            "match them in several files";
        "match.too_many_keys": Rejected, Local, "allow and deny name too many labels";
        "match.unknown_field": Rejected, Local, "a field is unknown";
        "match.unknown_mode": Rejected, Local, "a mode is unknown";
        "match.unknown_side": Rejected, Local, "a side is unknown";
        "match.unreadable": Usage, Local, "the input cannot be read";
        "match.unwritable": Usage, Local, "the output cannot be written";
        "match.wrong_type": Rejected, Local, "a field has another type";
        "match.zero_hours": Rejected, Local, "a bid asks for 0 hours";
        "match.zero_min_qty": Rejected, Local, "an order has min_qty 0";
        "match.zero_min_run": Rejected, Local, "an ask has min_run 0";
    },
    family! {
        "result",
        "`capex match --input FILE`, `capex epoch verify EPOCH`: a result that breaks a rule; \
         a result file";
        "result.above_limit": Failed, Peer, "a run costs more than the bid's limit";
        "result.below_limit": Failed, Peer, "a run costs less than the ask's limit";
        "result.incompatible": Failed, Peer, "two orders trade that do not accept each other";
        "result.money": Failed, Peer, "a total is not units times price";
        "result.not_ended": Rejected, Nobody, "the lease has not ended",
            "results are fetched when the workload has ended";
        "result.not_found": NotFound, Nobody, "the lease has no such result here",
            "results are fetched when the workload has ended";
        "result.order": Failed, Peer, "trades are not in ascending order";
        "result.overfilled": Failed, Peer, "a bid gets more than it wants";
        "result.oversold": Failed, Peer, "an ask sells more than it has";
        "result.price_slots": Failed, Peer, "prices do not cover exactly the slots with a trade";
        "result.run": Failed, Peer, "a run is not the one asked for and offered";
        "result.split_gang": Failed, Peer, "a gang is served by more than one ask";
        "result.split_run": Failed, Peer, "a bid is served in more than one run";
        "result.too_many_legs": Failed, Peer, "a bid is served by more asks than the rules allow";
        "result.underfilled": Failed, Peer, "a bid gets less than its minimum";
        "result.unknown_order": Failed, Peer, "a trade names an order that does not take part";
        "result.welfare": Failed, Peer, "the welfare is not the sum of the surpluses";
    },
    family! {
        "explain",
        "matcher: what kept two orders apart; see [below](#why-two-orders-did-not-trade)";
        "explain.allow": Note, Nobody, "an allow list leaves nobody";
        "explain.book_too_large": Rejected, Nobody,
            "the book is too large to match it again and again";
        "explain.cancelled": Note, Nobody, "its owner cancelled it";
        "explain.class": Note, Nobody, "nobody offers or wants its class";
        "explain.deny": Note, Nobody, "a deny list leaves nobody";
        "explain.expired": Note, Nobody, "its last epoch had passed";
        "explain.features": Note, Nobody, "nobody offers the features that are required";
        "explain.filled": Note, Nobody, "the bids had all they wanted from others";
        "explain.filled_before": Note, Nobody, "earlier epochs filled it";
        "explain.gang": Note, Nobody, "no single ask has the minimum fill";
        "explain.limit": Note, Nobody, "the limits do not cross";
        "explain.limit_not_confirmed": Note, Nobody,
            "version 1 of the matching rules says so, the network's was not seen to agree";
        "explain.max_legs": Note, Nobody, "it would take more asks than one bid may";
        "explain.min_fill": Note, Nobody, "there are fewer units than the minimum fill";
        "explain.min_run": Note, Nobody, "the run is shorter than sellers accept";
        "explain.no_counter_orders": Note, Nobody, "nobody was on the other side";
        "explain.not_chosen": Note, Nobody,
            "nothing forbade it; other trades gained more together";
        "explain.not_live": Note, Nobody, "no order of the other side takes part any more";
        "explain.promised_price": Note, Nobody,
            "accepted trades were promised prices that exclude it";
        "explain.self_trade": Note, Nobody, "the rest of the book is its owner's";
        "explain.taken": Note, Nobody, "better orders took the units";
        "explain.unknown_order": NotFound, Local, "the book has no such order",
            "see `capex epoch show EPOCH` for what the epoch holds";
        "explain.window": Note, Nobody, "no window shares enough slots with its own";
        "explain.window_past": Note, Nobody,
            "too few slots of its window could still be delivered";
    },
];
