# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The process pool: where files are cut, hashed, compressed and put together.

Workers are processes of our own: ``ProcessPoolExecutor`` takes 60 to 150 ms to start, and one dead
process breaks all of it. The parent cuts a *job* into units and leases them to idle workers;
results come back as packed bytes. Neither side imports Twisted, so that a command on local files
starts in tens of milliseconds; :mod:`desync.workers.reactor` joins a pool to a reactor.

A job has two halves. The parent's half (:class:`desync.workers.pool.Job`) divides the work and
takes the results. The worker's half is named as ``module:class``; it is made from the job's
settings, and its ``run(unit, note)`` is called for every unit.
"""
