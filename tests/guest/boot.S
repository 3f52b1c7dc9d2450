/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A boot sector that starts Linux from a disk with what the firmware offers:
 * INT 13h reads it, 64 sectors at a time, INT 15h moves it to where it belongs.
 * The table at PIECES, which images.py fills in, lists what to read. images.py
 * also prepares the kernel's header, so that nothing is left to do here but to
 * jump (Linux, Documentation/arch/x86/boot.rst).
 */
	.code16
	.globl	start

	.set	COM1, 0x3f8
	.set	BUFFER, 0x1000		/* segment, so address 0x10000 */
	.set	CHUNK, 64		/* sectors */
	.set	SETUP, 0x9000		/* segment of the kernel's first part */
	.set	PIECES, 0x7c00 + 0x1b0	/* { LBA, sectors, address }, 4 bytes each */
	.set	PIECES_END, PIECES + 4 * 12

start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp
	sti
	cld
	ljmp	$0, $1f
1:	movb	%dl, drive
	movw	$loading, %si
	call	print

	movw	$PIECES, %bx
chunk:
	movl	4(%bx), %eax		/* what is left of the piece */
	cmpl	$CHUNK, %eax
	jbe	1f
	movw	$CHUNK, %ax
1:	movw	%ax, count
	movl	(%bx), %eax
	movl	%eax, lba
	movw	$packet, %si
	movb	drive, %dl
	movb	$0x42, %ah
	int	$0x13
	jc	fail

	movl	8(%bx), %eax
	movw	%ax, to_low
	shrl	$16, %eax
	movb	%al, to_mid
	movb	%ah, to_high
	movw	count, %cx
	shlw	$8, %cx			/* in words */
	movw	$gdt, %si
	movb	$0x87, %ah
	int	$0x15
	jc	fail

	movzwl	count, %ecx
	addl	%ecx, (%bx)
	subl	%ecx, 4(%bx)
	shll	$9, %ecx
	addl	%ecx, 8(%bx)
	cmpl	$0, 4(%bx)
	jne	chunk
	addw	$12, %bx
	cmpw	$PIECES_END, %bx
	jne	chunk

	movw	$starting, %si
	call	print
	cli
	movw	$SETUP, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %fs
	movw	%ax, %gs
	movw	%ax, %ss
	movw	$0xe000, %sp
	ljmp	$SETUP + 0x20, $0

fail:
	movw	$failed, %si
	call	print
1:	hlt
	jmp	1b

print:
	movw	$COM1 + 5, %dx
1:	inb	%dx, %al
	testb	$0x20, %al		/* room in the transmitter */
	jz	1b
	lodsb
	testb	%al, %al
	jz	2f
	movw	$COM1, %dx
	outb	%al, %dx
	jmp	print
2:	ret

loading:  .asciz "boot sector: loading\n"
starting: .asciz "boot sector: starting Linux\n"
failed:	  .asciz "boot sector: FAILED\n"

	.balign	4
packet:					/* INT 13h, function 42h */
	.byte	16, 0
count:	.word	0
	.word	0, BUFFER
lba:	.long	0, 0

gdt:					/* INT 15h, function 87h */
	.fill	16
	.word	0xffff, (BUFFER << 4) & 0xffff
	.byte	BUFFER >> 12, 0x93, 0, 0
	.word	0xffff
to_low:	.word	0
to_mid:	.byte	0
	.byte	0x93, 0
to_high: .byte	0
	.fill	16
drive:	.byte	0

	.org	start + 0x1b0
	.fill	48			/* PIECES */
	.org	start + 510
	.word	0xaa55
