/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CD-ROM commands (MMC-6): one data track from the first block to the last.
 */
#include "base/util.h"
#include "dev/scsi/scsi.h"

enum {
	PROFILE_CDROM = 0x0008,
	PROFILE_DVDROM = 0x0010,
	CD_BLOCKS = 80 * 60 * 75, /* more than that is no CD */
	LEAD_OUT = 0xaa,
	ADR_DATA_TRACK = 0x14,
};

/* A block's address: by number, or minutes, seconds and frames. */
static void write_address(struct reply *r, uint64_t lba, bool msf)
{
	uint64_t frame = lba + 150;

	if (!msf) {
		reply_write(r, lba > UINT32_MAX ? UINT32_MAX : lba, 4);
		return;
	}
	if (frame > 256 * 60 * 75 - 1)
		frame = 256 * 60 * 75 - 1;
	reply_write(r, 0, 1);
	reply_write(r, frame / (60 * 75), 1);
	reply_write(r, frame / 75 % 60, 1);
	reply_write(r, frame % 75, 1);
}

static void write_track(struct reply *r, uint8_t number, uint64_t lba, bool msf)
{
	reply_write(r, 0, 1);
	reply_write(r, ADR_DATA_TRACK, 1);
	reply_write(r, number, 1);
	reply_write(r, 0, 1);
	write_address(r, lba, msf);
}

/* A descriptor of the raw table: point, and where it points. */
static void write_point(struct reply *r, uint8_t point, unsigned m, unsigned s,
			unsigned f)
{
	reply_write(r, 1, 1); /* session */
	reply_write(r, ADR_DATA_TRACK, 1);
	reply_write(r, 0, 1);
	reply_write(r, point, 1);
	reply_write(r, 0, 4);
	reply_write(r, m, 1);
	reply_write(r, s, 1);
	reply_write(r, f, 1);
}

static void raw_toc(struct reply *r, const struct scsi_lun *lun)
{
	uint64_t end = lun->nr_blocks + 150;

	if (end > 256 * 60 * 75 - 1)
		end = 256 * 60 * 75 - 1;
	write_point(r, 0xa0, 1, 0, 0);
	write_point(r, 0xa1, 1, 0, 0);
	write_point(r, 0xa2, (unsigned)(end / (60 * 75)),
		    (unsigned)(end / 75 % 60), (unsigned)(end % 75));
	write_point(r, 1, 0, 2, 0);
}

void mmc_read_toc(struct scsi_task *t)
{
	const struct scsi_lun *lun = t->lun;
	bool msf = t->cdb.b[1] & 2;
	uint8_t track = t->cdb.b[6];
	/* Where byte 2 has none, the format is where SFF-8020 had it. */
	unsigned format = t->cdb.b[2] ? t->cdb.b[2] : t->cdb.b[9] >> 6;
	struct reply r;

	if (format > 2 || (format == 0 && track > 1 && track != LEAD_OUT)) {
		task_bad_cdb(t, format > 2 ? 2 : 6, 8);
		return;
	}
	reply_init(&r);
	reply_write(&r, 0, 2);
	reply_write(&r, 1, 1); /* first and last track, or session */
	reply_write(&r, 1, 1);
	if (format == 2) {
		raw_toc(&r, lun);
	} else if (format == 1) {
		write_track(&r, 1, 0, msf);
	} else {
		if (track <= 1)
			write_track(&r, 1, 0, msf);
		write_track(&r, LEAD_OUT, lun->nr_blocks, msf);
	}
	write_be16(r.b, (uint16_t)(r.len - 2));
	task_reply(t, &r);
}

/*
 * --- What it is and can do ---
 */

static uint16_t profile_of(const struct scsi_lun *lun)
{
	if (lun_not_ready(lun))
		return 0;
	return lun->nr_blocks > CD_BLOCKS ? PROFILE_DVDROM : PROFILE_CDROM;
}

static void write_profile(struct reply *r, const struct scsi_lun *lun,
			  uint16_t profile)
{
	reply_write(r, profile, 2);
	reply_write(r, profile == profile_of(lun), 1);
	reply_write(r, 0, 1);
}

static void feature_profiles(struct reply *r, const struct scsi_lun *lun)
{
	write_profile(r, lun, PROFILE_DVDROM);
	write_profile(r, lun, PROFILE_CDROM);
}

static void feature_core(struct reply *r, const struct scsi_lun *lun)
{
	reply_write(r, 1, 4); /* physical interface: SCSI */
	reply_write(r, 1, 1); /* DBE */
	reply_write(r, 0, 3);
}

static void feature_removable(struct reply *r, const struct scsi_lun *lun)
{
	reply_write(r, 0x29, 1); /* tray, ejects, locks */
	reply_write(r, 0, 3);
}

static void feature_random_read(struct reply *r, const struct scsi_lun *lun)
{
	reply_write(r, 2048, 4);
	reply_write(r, 1, 2);
	reply_write(r, 0, 2);
}

static const struct {
	uint16_t code;
	uint8_t version_bits; /* version, persistent, current */
	void (*fill)(struct reply *r, const struct scsi_lun *lun);
} features[] = {
	{ 0x0000, 0x03, feature_profiles },
	{ 0x0001, 0x0b, feature_core },
	{ 0x0003, 0x03, feature_removable },
	{ 0x0010, 0x01, feature_random_read },
};

/* RT, what is asked for: 0 all, 1 the current ones, 2 this one. */
void mmc_get_configuration(struct scsi_task *t)
{
	const struct scsi_lun *lun = t->lun;
	unsigned rt = t->cdb.b[1] & 3;
	uint16_t from = read_be16(t->cdb.b + 2);
	struct reply r;

	if (rt == 3) {
		task_bad_cdb(t, 1, 1);
		return;
	}
	reply_init(&r);
	reply_write(&r, 0, 6);
	reply_write(&r, profile_of(lun), 2);
	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		size_t at = r.len;

		if (rt == 2 ? features[i].code != from :
			      features[i].code < from)
			continue;
		reply_write(&r, features[i].code, 2);
		reply_write(&r, features[i].version_bits, 1);
		reply_write(&r, 0, 1);
		features[i].fill(&r, lun);
		r.b[at + 3] = (uint8_t)(r.len - at - 4);
	}
	write_be32(r.b, (uint32_t)r.len - 4);
	task_reply(t, &r);
}

static enum media_event take_event(struct scsi_lun *lun)
{
	enum media_event event = lun->media_event;

	lun->media_event = MEDIA_NO_EVENT;
	if (event == MEDIA_NO_EVENT && (lun->ua & UA_MEDIUM))
		return MEDIA_NEW;
	return event;
}

/* Only by polling; only what happens to the medium. */
void mmc_get_event_status(struct scsi_task *t)
{
	struct scsi_lun *lun = t->lun;
	bool media = t->cdb.b[4] & 0x10;
	struct reply r;

	if (!(t->cdb.b[1] & 1)) {
		task_bad_cdb(t, 1, 0);
		return;
	}
	reply_init(&r);
	reply_write(&r, media ? 6 : 2, 2);
	reply_write(&r, media ? 0x04 : 0x80, 1); /* 80: no such event class */
	reply_write(&r, 0x10, 1);
	if (media) {
		reply_write(&r, take_event(lun), 1);
		/* tray open; media present */
		reply_write(&r, lun->ejected ? 1 : lun->disk ? 2 : 0, 1);
		reply_write(&r, 0, 2);
	}
	task_reply(t, &r);
}

void mmc_mechanism_status(struct scsi_task *t)
{
	struct reply r;

	reply_init(&r);
	reply_write(&r, t->lun->ejected ? 0x1000 : 0, 2); /* door open */
	reply_write(&r, 0, 6);
	task_reply(t, &r);
}

void mmc_read_disc_info(struct scsi_task *t)
{
	struct reply r;

	if (t->cdb.b[1] & 7) { /* other data types than the standard one */
		task_bad_cdb(t, 1, 2);
		return;
	}
	reply_init(&r);
	reply_write(&r, 32, 2);
	reply_write(&r, 0x0e, 1); /* last session and disc complete */
	reply_write(&r, 1, 1);    /* first track */
	reply_write(&r, 1, 1);    /* sessions */
	reply_write(&r, 1, 1);    /* first and last track in the last one */
	reply_write(&r, 1, 1);
	reply_write(&r, 0x20, 1); /* unrestricted use */
	reply_write(&r, 0, 8);
	reply_write(&r, UINT64_MAX, 8); /* lead-in, lead-out: none to be had */
	reply_write(&r, 0, 8);
	reply_write(&r, 0, 2);
	task_reply(t, &r);
}

/*
 * --- READ DISC STRUCTURE, MMC-6 6.22: of a DVD ---
 */

#define DVD_FIRST 0x030000u /* where its data begins, in physical sectors */

/* One layer, 120 mm, embossed. */
static void structure_physical(struct reply *r, const struct scsi_lun *lun)
{
	uint64_t last = DVD_FIRST + lun->nr_blocks - 1;

	reply_write(r, 0x01, 1); /* DVD-ROM, version 1 */
	reply_write(r, 0x0f, 1); /* 120 mm, no maximum rate */
	reply_write(r, 0x01, 1); /* one layer, with embossed data */
	reply_write(r, 0, 1);    /* density */
	reply_write(r, DVD_FIRST, 4);
	reply_write(r, last > 0xffffff ? 0xffffff : last, 4);
	reply_write(r, 0, 4); /* no second layer */
	reply_add(r, 2048 - 16);
}

/* No protection, no regions. */
static void structure_copyright(struct reply *r, const struct scsi_lun *lun)
{
	reply_write(r, 0, 4);
}

static void structure_manufacturing(struct reply *r, const struct scsi_lun *lun)
{
	reply_add(r, 2048);
}

static void structure_list(struct reply *r, const struct scsi_lun *lun);

static const struct {
	uint8_t format;
	uint16_t len; /* with the header */
	void (*fill)(struct reply *r, const struct scsi_lun *lun);
} structures[] = {
	{ 0x00, 2052, structure_physical },
	{ 0x01, 8, structure_copyright },
	{ 0x04, 2052, structure_manufacturing },
	{ 0xff, 0, structure_list },
};

static void structure_list(struct reply *r, const struct scsi_lun *lun)
{
	for (size_t i = 0; i < ARRAY_LEN(structures); i++) {
		reply_write(r, structures[i].format, 1);
		reply_write(r, 0x40, 1); /* can be read */
		reply_write(r, structures[i].len, 2);
	}
}

void mmc_read_disc_structure(struct scsi_task *t)
{
	const struct scsi_lun *lun = t->lun;
	uint8_t format = t->cdb.b[7];
	struct reply r;

	if (t->cdb.b[1] & 0x0f) { /* of other media than DVD and HD DVD */
		task_bad_cdb(t, 1, 3);
		return;
	}
	if (profile_of(lun) != PROFILE_DVDROM && format != 0xff) {
		task_check(t, SC_INCOMPATIBLE_MEDIUM);
		return;
	}
	reply_init(&r);
	reply_write(&r, 0, 4);
	for (size_t i = 0; i < ARRAY_LEN(structures); i++) {
		if (structures[i].format == format)
			structures[i].fill(&r, lun);
	}
	if (r.len == 4) {
		task_bad_cdb(t, 7, 8);
		return;
	}
	write_be16(r.b, (uint16_t)(r.len - 2));
	task_reply(t, &r);
}

/*
 * --- READ CD, MMC-6 6.19: the user data of sectors in mode 1 ---
 */

void mmc_read_cd(struct scsi_task *t)
{
	unsigned type = t->cdb.b[1] >> 2 & 7; /* expected; 0: any */
	uint8_t fields = t->cdb.b[9];

	if (type != 0 && type != 2) {
		task_check(t, SC_ILLEGAL_MODE);
		return;
	}
	if (t->cdb.b[10] & 7) { /* sub-channels */
		task_bad_cdb(t, 10, 2);
		return;
	}
	if (fields == 0) { /* only seek */
		sbc_seek(t);
		return;
	}
	/* Headers and correction codes are not in the image. */
	if (fields != 0x10) {
		task_bad_cdb(t, 9, 7);
		return;
	}
	sbc_read(t);
}
