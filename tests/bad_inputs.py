"""What bad inputs there are, and the tests of each: read by people, and held to be true by a test."""

from __future__ import annotations

__all__ = ["TABLE"]

NAMES = {
    "a collection such as ../x, a/../../b, /abs, empty, '.', NUL, a newline, 2,000 characters, a leading '-'": (
        "unit/test_keys.py::test_a_collection_that_cannot_be_is_refused",
        "store/test_save_load.py::test_bad_collections_are_refused_before_anything_is_written",
        "fuzz/test_fuzz.py::test_any_bytes_give_a_value_or_an_error_of_ours",
    ),
    "a run, label or field that cannot be": (
        "unit/test_keys.py::test_a_name_that_cannot_be_is_refused",
        "store/test_save_load.py::test_bad_arguments_are_refused_before_anything_is_written",
    ),
    "Run beside run where case is folded": (
        "unit/test_keys.py::test_run_and_upper_case_run_are_apart",
        "unit/test_keys.py::test_two_collections_never_share_a_key_even_where_case_is_folded",
        "unit/test_keys.py::test_two_checkpoints_never_share_a_key_even_where_case_is_folded",
    ),
    "URLs without a bucket, with '..', with a user and password, of other kinds, of devices, with a query": (
        "unit/test_urls.py::test_bad_urls_are_refused_without_their_secrets",
        "unit/test_urls.py::test_a_bad_url_or_option_touches_nothing",
        "s3/test_canaries.py::test_what_a_url_should_not_hold_is_not_repeated",
    ),
    "a reference of another store": (
        "store/test_save_load.py::test_a_reference_to_another_store_is_refused",
    ),
    "a reference's dict with missing, extra or wrongly typed parts": (
        "unit/test_checkpoint.py::test_a_reference_with_a_part_missing_is_refused",
        "unit/test_checkpoint.py::test_a_reference_with_another_part_is_refused",
        "unit/test_checkpoint.py::test_a_wrong_part_is_refused_by_name",
    ),
    "a name that names no checkpoint": (
        "store/test_names_of_checkpoints.py::test_what_names_no_checkpoint_is_refused",
    ),
    "attributes with names of the store's own": (
        "store/test_reserved_attributes.py::test_a_name_of_the_stores_own_is_refused_before_anything_is_written",
    ),
    "a grace of zero, negative, NaN; T not below G": (
        "unit/test_config.py::test_a_wrong_option_is_refused_by_name",
        "unit/test_config.py::test_a_save_as_long_as_the_grace_is_refused",
        "unit/test_marker.py::test_saves_lateness_and_clocks_must_fit_into_the_grace",
    ),
    "retention that keeps nothing": (
        "unit/test_retention.py::test_counts_that_keep_nothing_are_refused",
        "unit/test_retention.py::test_a_policy_needs_a_rule_and_joins_only_with_another",
        "store/test_retain.py::test_a_save_with_a_wrong_policy_saves_nothing",
    ),
    "metadata of 10 MB, with keys that are no strings, of depth 10,000": (
        "unit/test_metadata.py::test_ten_megabytes_are_refused_and_not_copied",
        "unit/test_metadata.py::test_a_key_that_is_no_string_is_refused",
        "unit/test_metadata.py::test_depth_10_000_is_refused",
    ),
}

MANIFESTS = {
    "empty, cut at every length, extended": (
        "unit/test_manifest.py::test_a_manifest_cut_at_any_length_is_refused",
        "unit/test_manifest.py::test_a_manifest_with_something_behind_it_is_refused",
    ),
    "every single bit flipped": (
        "unit/test_manifest.py::test_every_flipped_bit_is_found",
        "unit/test_manifest.py::test_flipped_bits_under_digests_that_fit_raise_only_errors_of_ours",
        "faults/test_corruption.py::test_no_flipped_bit_in_any_stored_file_gives_wrong_data",
    ),
    "random bytes, an HTML page, wrong magic": (
        "unit/test_manifest.py::test_random_bytes_are_refused",
        "unit/test_manifest.py::test_what_is_no_manifest_is_refused",
        "fuzz/test_fuzz.py::test_any_bytes_give_a_value_or_an_error_of_ours",
    ),
    "a future version, unknown flags": (
        "unit/test_manifest.py::test_a_future_version_is_named_as_one",
        "unit/test_manifest.py::test_unknown_flags_are_refused",
    ),
    "lengths that lie": ("unit/test_manifest.py::test_lengths_that_lie_are_refused",),
    "a bomb, two frames, trailing bytes, a huge window, a dictionary": (
        "unit/test_manifest.py::test_anything_but_the_one_frame_is_refused",
        "unit/test_manifest.py::test_a_bomb_that_says_its_size_is_refused_unopened",
        "unit/test_manifest.py::test_a_bomb_of_empty_containers_takes_little_memory",
    ),
    "msgpack with duplicate keys, extension types, timestamps, other keys than strings, depth, huge lengths": (
        "unit/test_manifest_schema.py::test_what_the_dialect_lacks_is_refused_in_the_summary",
        "unit/test_manifest_schema.py::test_what_the_dialect_lacks_is_refused_in_the_chunk_table",
        "unit/test_manifest_schema.py::test_long_lists_in_one_another_take_no_memory",
        "unit/test_manifest_schema.py::test_metadata_to_depth_10_000_is_refused",
    ),
    "floats for ints, NaN, negative sizes": (
        "unit/test_manifest_schema.py::test_no_other_value_is_taken_for_one_that_matters",
    ),
    "sums that do not add up, shapes that overflow, segments that overlap or lack, chunks out of range": (
        "unit/test_manifest_schema.py::test_a_contradiction_is_refused",
        "store/test_hostile.py::test_a_graph_that_lies_is_a_corrupt_manifest",
    ),
    "an unknown codec, dtype O, 65 dimensions": (
        "unit/test_manifest_schema.py::test_an_unknown_codec_asks_for_an_upgrade",
        "unit/test_manifest_limits.py::test_65_dimensions_are_refused_by_default",
        "unit/serializers/test_serialize_hostile.py::test_a_damaged_graph_is_refused_with_the_fields_name",
    ),
    "a manifest under another key, collection or store": (
        "unit/test_manifest.py::test_a_manifest_under_another_name_is_refused",
        "unit/test_manifest.py::test_a_manifest_of_another_collection_is_refused",
        "unit/test_manifest.py::test_a_manifest_of_another_store_is_refused",
    ),
    "a MAC that is missing or wrong, or an algorithm that was lowered": (
        "security/test_signing.py::test_every_bit_of_header_and_mac_is_covered",
        "security/test_signing.py::test_a_downgrade_is_refused",
        "security/test_trust.py::test_a_key_refuses_what_is_not_signed_everywhere",
    ),
    "a pin that differs": ("unit/test_manifest.py::test_a_pin_that_differs_is_refused",),
    "a total of 2**60": (
        "unit/test_manifest_limits.py::test_a_total_of_2_to_the_60_is_refused_before_anything_is_allocated",
    ),
}

CHUNKS = {
    "missing, truncated, extended, flipped, swapped, empty, HTML, another content size, a bomb, no regular file": (
        "faults/test_corruption.py::test_a_chunk_that_is_not_what_was_stored_is_named",
        "unit/test_codecs.py::test_hostile_frames_are_refused_before_anything_is_allocated",
    ),
    "a bit flipped once in transit": (
        "faults/test_corruption.py::test_a_bit_flipped_in_transit_heals_by_itself",
        "s3/test_saves.py::test_a_chunk_that_was_flipped_on_its_way_is_got_again",
    ),
    "raw under a zstd key and the reverse": (
        "faults/test_corruption.py::test_raw_bytes_under_a_zstd_key_and_the_reverse_are_corrupt",
    ),
    "permission denied": (
        "faults/test_corruption.py::test_a_chunk_without_permission_is_not_missing",
        "faults/test_corruption.py::test_a_file_without_permission_is_not_missing",
    ),
    "a server that ignores ranges": ("s3/test_answers.py::test_a_server_that_ignores_ranges_is_understood",),
}

PICKLES = {
    "every name and opcode that could run something": (
        "security/test_gadgets.py::test_a_gadget_is_refused_and_does_nothing",
        "security/test_gadgets.py::test_there_are_many_gadgets",
        "security/test_gadgets.py::test_the_tripwire_sees_what_gadgets_do",
    ),
    "too few or too many buffers": ("security/test_machine.py::test_buffers_are_used_exactly_once_each",),
    "a huge memo index, lengths beyond the input, trailing data, an unknown protocol": (
        "security/test_machine.py::test_a_damaged_stream_is_refused_as_damaged",
    ),
    "a depth of a million": (
        "security/test_nesting.py::test_hundreds_of_thousands_of_levels_do_not_end_the_process",
    ),
    "never again without safety": (
        "security/test_trust.py::test_plain_objects_load_without_trust_and_others_do_not_run",
        "security/test_fuzz_unpickler.py::test_random_streams_give_a_value_or_an_error_and_touch_nothing",
    ),
}

NETWORK = {
    "a listing that is empty, HTML, without IsTruncated, unsorted, repeated, foreign, endless": (
        "s3/test_answers.py::test_a_listing_that_cannot_be_believed_is_an_error",
        "s3/test_saves.py::test_an_unbelievable_listing_never_means_that_there_is_no_checkpoint",
    ),
    "an empty answer, or one of somebody else": (
        "s3/test_answers.py::test_an_answer_that_is_not_s3s_heals_or_is_an_error",
    ),
    "a GET cut or reset at every tenth": ("s3/test_chaos.py::test_a_body_that_is_cut_anywhere_is_got_again",),
    "stalled, trickling": (
        "s3/test_chaos.py::test_a_server_that_falls_silent_is_asked_again",
        "s3/test_chaos.py::test_a_trickling_body_is_given_up_in_time_and_got_again",
        "s3/test_chaos.py::test_a_server_that_does_not_read_is_given_up_in_time",
    ),
    "flipped on its way": (
        "s3/test_chaos.py::test_a_bit_flipped_on_the_way_up_is_found_by_the_server",
        "s3/test_saves.py::test_a_manifest_that_was_flipped_on_its_way_is_an_error_or_right",
    ),
    "a PUT reset while it is sent, or stored and not answered": (
        "s3/test_chaos.py::test_a_put_that_is_reset_while_it_is_sent_is_sent_again",
        "s3/test_saves.py::test_a_commit_without_an_answer_is_found_out_about",
    ),
    "a 200 with an error in it": ("s3/test_answers.py::test_a_200_with_an_error_in_it_is_no_success",),
    "500, 503, 409, 412 for a while or for ever": (
        "s3/test_chaos.py::test_what_passes_is_tried_again_up_to_eight_times",
        "backends/test_retry.py::test_pauses_double_with_full_jitter_and_eight_tries_are_the_end",
    ),
    "redirects": ("s3/test_chaos.py::test_redirects_are_never_followed",),
    "clock skew": ("s3/test_chaos.py::test_clock_skew_tells_its_size",),
    "credentials that expire in mid-save": (
        "s3/test_credentials.py::test_what_was_acknowledged_before_credentials_expired_is_not_sent_again",
    ),
    "a provider of credentials that is down": (
        "s3/test_credentials.py::test_a_provider_that_is_down_is_asked_again_and_never_quoted",
    ),
    "errors for some keys of a bulk delete": (
        "s3/test_removal.py::test_errors_within_a_200_are_read_key_by_key",
        "faults/test_gc_doubts.py::test_what_could_not_be_deleted_is_told_and_not_counted",
    ),
    "the bucket deleted in mid-save": (
        "s3/test_saves.py::test_a_save_that_is_refused_half_way_leaves_the_older_checkpoints",
        "s3/test_chaos.py::test_a_bucket_that_is_not_there_is_told_from_one_that_is_gone",
    ),
    "a Content-Length of 10 GB": ("s3/test_answers.py::test_more_than_was_asked_for_is_cut_off_not_read",),
    "one new store made by several in the same moment": (
        "s3/test_creation.py::test_stores_that_are_made_at_once_are_one_store",
        "unit/test_marker.py::test_two_creators_at_once_agree_on_one_id",
    ),
}

DISK = {
    "a full disk at every write": (
        "faults/test_disk_full.py::test_a_save_on_a_disk_that_is_full_at_any_page_is_refused_whole",
        "faults/test_io_errors.py::test_a_save_that_fails_at_any_call_commits_nothing_and_the_next_one_works",
    ),
    "EDQUOT at close, EIO on a flush, EROFS, EACCES, EMFILE": (
        "faults/test_io_errors.py::test_a_save_that_fails_at_any_call_commits_nothing_and_the_next_one_works",
        "faults/test_io_errors.py::test_deleting_and_collecting_that_fails_at_any_call_costs_nothing_that_is_kept",
    ),
    "no descriptors left, by the system's own limit": (
        "faults/test_descriptors.py::test_a_process_without_descriptors_is_told_so_and_goes_on_when_it_has_some",
        "s3/test_s3_descriptors.py::test_a_request_without_a_socket_is_an_error_and_works_when_there_is_one",
    ),
    "EIO on reading": (
        "faults/test_io_errors.py::test_a_question_that_fails_at_any_call_is_answered_or_an_error_and_never_nothing",
    ),
    "short writes and reads": ("faults/test_io_errors.py::test_bytes_that_come_and_go_in_parts_are_whole",),
    "the store's directory removed while it is in use": (
        "faults/test_other_hands.py::test_a_store_whose_folder_is_gone_says_so_and_never_that_nothing_is_there",
        "faults/test_other_hands.py::test_a_folder_removed_in_mid_save_fails_the_save_and_is_not_made_again",
    ),
    "a shard directory that is a link": (
        "faults/test_other_hands.py::test_a_linked_shard_is_an_error_and_what_it_leads_to_stays",
    ),
    "foreign files everywhere": (
        "faults/test_other_hands.py::test_foreign_files_everywhere_disturb_nothing_and_stay",
        "faults/test_gc.py::test_what_is_not_the_stores_own_is_left_alone_and_named",
    ),
    "the clock a year forth or back": (
        "faults/test_clocks.py::test_a_machine_a_year_off_saves_loads_retains_and_collects_as_any",
        "faults/test_clocks.py::test_a_clock_that_jumps_in_mid_save_costs_at_most_that_save",
        "faults/test_clocks.py::test_whose_clock_cannot_tell_how_old_a_deletion_is_undeletes_nothing",
        "faults/test_gc_doubts.py::test_a_storage_whose_clock_jumps_is_not_believed",
    ),
    "a power cut": (
        "faults/test_power_cut.py::test_every_state_that_a_power_cut_may_leave_is_sound",
        "faults/test_power_cut_disk.py::test_no_power_cut_of_a_disk_loses_what_was_acknowledged",
    ),
    "a killed process": (
        "faults/test_kill.py::test_killed_trainers_beside_a_collector_keep_their_last_three",
    ),
}

USE = {
    "a lock, generator or open file in the state": (
        "unit/serializers/test_serialize_errors.py::test_what_cannot_be_saved_is_found_wherever_it_stands",
        "unit/serializers/test_serialize_errors.py::test_open_files_and_sockets_cannot_be_saved",
        "store/test_save_load.py::test_what_cannot_be_saved_is_named_and_nothing_is_left",
    ),
    "__getstate__ that changes the object, __reduce__ that raises": (
        "unit/serializers/test_serialize_objects.py::test_an_object_that_changes_when_pickled_still_comes_back",
        "unit/serializers/test_serialize_errors.py::test_a_reduce_that_raises_is_named_with_its_exception",
    ),
    "cycles": (
        "unit/serializers/test_serialize_tree.py::test_cycles_through_lists_dicts_and_tuples_close_again",
        "unit/serializers/test_serialize_objects.py::test_cycles_through_objects_close_again",
    ),
    "views and shared storages": (
        "unit/serializers/test_serialize_arrays.py::test_views_of_one_array_share_memory_again",
        "unit/serializers/test_serialize_tensors.py::test_views_and_tied_weights_share_storage_again",
    ),
    "a tensor that changes right after a background save": (
        "faults/test_blocking.py::test_a_tensor_that_changes_after_a_background_save_is_stored_as_it_was",
    ),
    "arrays of every dtype and layout": (
        "unit/serializers/test_serialize_arrays.py::test_every_dtype_comes_back_exactly",
        "unit/serializers/test_serialize_arrays.py::test_every_layout_comes_back",
        "unit/serializers/test_serialize_tensors.py::test_every_dtype_comes_back_exactly",
        "unit/serializers/test_serialize_tensors.py::test_every_layout_comes_back",
    ),
    "a leaf of 2 GiB + 1": ("store/test_huge.py::test_a_leaf_of_more_than_two_gibibytes_comes_back",),
    "a million tiny leaves": ("store/test_huge.py::test_very_many_tiny_leaves_come_back",),
    "two saves at once": ("faults/test_blocking.py::test_a_busy_store_waits_skips_or_refuses",),
    "use after close": (
        "store/test_save_load.py::test_a_closed_store_says_so",
        "backends/test_conformance_concurrency.py::test_close_is_idempotent_and_use_after_it_is_an_error",
    ),
    "use in a forked child": (
        "faults/test_exit_fork.py::test_a_child_process_cannot_use_its_parents_store_and_opens_its_own",
        "faults/test_exits.py::test_children_of_every_kind_save_to_stores_of_their_own",
    ),
    "use inside its own callback": (
        "faults/test_pending_callbacks.py::test_a_callback_that_calls_the_store_is_told_that_it_would_wait_for_itself",
    ),
    "cancelled at every await": (
        "faults/test_every_operation.py::test_an_operation_that_fails_anywhere_leaves_the_store_whole",
        "faults/test_cancel.py::test_a_save_cancelled_in_its_commit_is_finished_and_the_cancellation_goes_on",
    ),
    "loaded into arrays, tensors and modules of other keys, lengths, shapes, dtypes or sharing": (
        "store/test_load_into.py::test_all_that_does_not_fit_is_told_at_once_and_nothing_changes",
        "store/test_load_into.py::test_sharing_that_differs_is_refused",
        "store/test_load_into_torch.py::test_a_module_that_does_not_fit_is_told_by_its_names",
        "store/test_load_into_torch.py::test_what_cannot_be_written_to_is_refused",
    ),
    "a part or path of a checkpoint that is not there": (
        "store/test_handle.py::test_what_is_not_there_is_named",
        "store/test_handle.py::test_leaves_that_are_not_there_are_named",
    ),
    "loaded with missing fields, onto an object": (
        "store/test_save_load.py::test_a_field_that_is_not_there_is_named",
        "plugin/test_outside.py::test_load_sets_all_attributes_of_an_object_or_none",
        "plugin/test_directory_saves.py::test_a_damaged_file_changes_neither_attributes_nor_directory",
    ),
}

TABLE = {
    "names, URLs, configuration": NAMES,
    "manifests": MANIFESTS,
    "chunks": CHUNKS,
    "pickled parts": PICKLES,
    "server and network": NETWORK,
    "disk": DISK,
    "use": USE,
}
