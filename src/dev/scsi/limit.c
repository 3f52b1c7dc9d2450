/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Limits of a unit, iops= and bps=: commands wait in its task set until those
 * before are paid for. When the device stops they run at once, since the stop
 * waits for them; there are no more than the guest has sent.
 */
#include "dev/scsi/scsi.h"

static void on_timer(void *arg)
{
	task_schedule(arg);
}

int limit_init(struct scsi_lun *lun, uint64_t iops, uint64_t bps)
{
	ratelimit_init(&lun->iops, iops, 1);
	ratelimit_init(&lun->bps, bps, 4096);
	if (!iops && !bps)
		return 0;
	return vio_timer_add(lun->sc->sc_loop, on_timer, lun,
			     &lun->limit_timer);
}

bool limit_allows(struct scsi_lun *lun)
{
	uint64_t iops_ns, bps_ns, wait_ns;

	if (!lun->limit_timer || scsi_is_stopping(lun->sc))
		return true;
	iops_ns = ratelimit_debt_ns(&lun->iops);
	bps_ns = ratelimit_debt_ns(&lun->bps);
	wait_ns = iops_ns > bps_ns ? iops_ns : bps_ns;
	if (wait_ns)
		vio_timer_set(lun->limit_timer, wait_ns);
	return wait_ns == 0;
}

void limit_charge(struct scsi_lun *lun, unsigned commands, uint64_t bytes)
{
	if (!lun->limit_timer)
		return;
	ratelimit_charge(&lun->iops, commands);
	ratelimit_charge(&lun->bps, bytes);
}
