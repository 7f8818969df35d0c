//! Real processes on loopback: `capex devchain` and daemons of `capex up`, killed,
//! restarted and asked over HTTP and by the command line.
//!
//! Every world has its own temporary directory and its own chain, and every port is given
//! by the system, so that tests run beside each other. `scripts/kill_loop` makes the kill loop
//! longer and different.
#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a failed wait shows its logs")]

mod a_certificate_is_given_and_redeemed;
mod a_certificate_is_sold_on_and_redeemed_by_its_buyer;
mod a_container_is_redeemed;
mod a_daemon_killed_in_mid_settlement_loses_nothing;
mod a_daemon_takes_up_where_it_stopped;
mod a_data_directory_has_one_user_and_one_network;
mod a_full_disk_loses_nothing;
mod a_guest_does_what_its_holder_allows;
mod a_holder_comes_into_its_lease;
mod a_lease_is_extended;
mod a_lease_outlives_its_daemon;
mod a_log_that_cannot_be_written_ends_no_daemon;
mod a_newcomer_joins_by_one_line;
mod a_node_goes_on_elsewhere_from_its_backup;
mod a_payment_is_signed_elsewhere;
mod a_provider_announces_a_maintenance;
mod a_provider_ends_a_lease_early;
mod a_resale_killed_at_any_moment_loses_nothing;
mod a_sealed_value_is_in_no_file;
mod a_stream_into_a_lease_outlives_daemons;
mod a_workload_begins_by_itself;
mod an_image_is_pulled_by_its_provider;
mod an_order_is_explained_and_quoted;
mod an_upload_that_is_cut_goes_on;
mod bad_input_is_refused_with_a_code;
mod coins_go_out_and_come_back_from_words;
mod daemon;
mod home;
#[path = "../containers/image.rs"]
mod image;
mod market;
mod one_identity_is_one_process;
mod parts_of_a_certificate_survive_kills;
#[path = "../registry/mod.rs"]
mod registry;
mod signer;
mod spends_nothing_without_a_chain_source;
mod ssh_and_ports_lead_into_a_lease;
mod the_end_of_a_terminal_ends_a_daemon_cleanly;
mod the_files_that_name_a_daemon_come_back;
mod three_pay_for_a_fourth_and_one_is_killed;
mod two_daemons_trade_and_settle;
mod what_a_host_fails_to_run_is_on_the_receipt;
mod what_was_paid_for_comes_back_from_its_file;
mod world;
