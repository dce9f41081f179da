// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The kernel side of the sensor, as one object. See LICENSE in this folder.
#include "call.h"
#include "egress.h"
#include "deny.h"

char sensor_license[] SEC("license") = "Dual BSD/GPL";

// The types of events are in the object for a test to see.
const enum event_type *unused __attribute__((unused));
