/* SPDX-License-Identifier: BSD-2-Clause */
/* Between func.c and msix.c. */
#ifndef PCI_FUNC_H
#define PCI_FUNC_H

#include <viodev/pci.h>

/* Registers that govern interrupts were written: act on them. */
void pci_update_interrupts(struct pci_devinst *pi);

/* Set Bus Master on behalf of a driver that does not. */
void pci_set_bus_master(struct pci_devinst *pi);

/* MSI-X, MSI and INTx as after power-on. */
void pci_reset_interrupts(struct pci_devinst *pi);

#endif
