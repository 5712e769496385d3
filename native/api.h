/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What every source of the core begins with. */
#ifndef VNETHASH_API_H
#define VNETHASH_API_H

#include "core.h"

#define API __attribute__((visibility("default"))) /* the rest is hidden */

#endif
