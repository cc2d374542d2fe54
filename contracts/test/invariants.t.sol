// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Walking} from "./walk/Walking.sol";

/// @dev forge calls the actions of `Handler` at random and each of these after every call, `afterInvariant` at the end of every run.
contract InvariantsTest is Walking {
    function targetContracts() public view returns (address[] memory) {
        return list(address(walk));
    }

    /// @dev I1, I2.
    function invariant_every_unit_is_accounted_for() public view {
        walk.everyUnitIsAccountedFor();
    }

    /// @dev I3, I11, I14.
    function invariant_money_goes_only_where_it_may() public view {
        walk.moneyGoesOnlyWhereItMay();
    }

    /// @dev I6, I7, I8, I15, I16.
    function invariant_pools_and_lines_are_as_the_books_say() public view {
        walk.poolsAndLinesAreAsTheBooksSay();
    }

    /// @dev I4, I5, I6, I9, I10.
    function invariant_no_call_does_what_the_books_forbid() public view {
        walk.noCallDidWhatTheBooksForbid();
    }

    /// @dev I13, I14.
    function afterInvariant() public {
        drain();
    }
}
